"""Metrics of autoencoders in EQ-VAE's tables (1, 5 and 12), and predictors of a generator's FID."""

test_evaluators = [
    dict(type='ReconstructionMetric'),
    dict(type='ReconstructionMetric', protocol='eqvae'),
    dict(type='PerceptualMetric', distance=dict(type='LPIPS', net='vgg')),
    dict(type='ReconstructionFrechet', extractor=dict(type='FIDInception')),
    dict(type='EquivarianceError'),
    dict(type='LatentStatistics'),
    dict(type='LatentSpectrum'),
    dict(type='IntrinsicDimension'),
    dict(type='EffectiveRank'),
    dict(type='SpatialStructure'),
    dict(type='VelocityVariance'),
]
