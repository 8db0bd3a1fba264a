"""Metrics that need no download: Fréchet distance on EfficientNet-Lite0, swd."""

test_evaluators = [
    dict(type='ReconstructionMetric'),
    dict(type='ReconstructionFrechet', extractor=dict(type='EfficientNetLite0')),
    dict(type='ReconstructionSlicedWasserstein'),
    dict(type='EquivarianceError'),
    dict(type='LatentStatistics'),
    dict(type='LatentSpectrum'),
    dict(type='IntrinsicDimension'),
    dict(type='EffectiveRank'),
    dict(type='SpatialStructure'),
    dict(type='VelocityVariance'),
]
