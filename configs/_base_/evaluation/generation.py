"""Metrics of generators in tables: FID, sFID, Inception Score, precision and recall of 50,000 samples; and KID."""

sampling = dict(num_samples=50_000, batch_size=128, labels='random', seed=0)

# ADM's batch, from https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/imagenet/256/
test_evaluators = [
    dict(
        type='GenerationMetric',
        extractor=dict(type='FIDInception'),
        reference='data/VIRTUAL_imagenet256_labeled.npz',
    ),
]
