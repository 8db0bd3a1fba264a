"""Features of FDD, as EDM2 takes them."""

extractor = dict(type='DINOv2', size='l')
