"""Features of FID, sFID, Inception Score, precision and recall, as ADM's evaluator takes them."""

extractor = dict(type='FIDInception')
