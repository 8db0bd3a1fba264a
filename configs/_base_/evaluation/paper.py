"""What EQ-VAE's tables report of an autoencoder (Tables 1, 5 and 12), and what predicts a generator's FID."""

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
