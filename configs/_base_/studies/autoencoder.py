"""Training of autoencoders in studies, and their metrics. A leaf adds `run`, the network, data and length."""

extractor = dict(type='EfficientNetLite0', size=112)
model = dict(
    type='AutoencoderTraining',
    objective=dict(type='Plain'),
    reconstruction_loss=dict(type='ReconstructionLoss', pixel=dict(type='L1')),
    penalties=[dict(type='KLDivergence', weight=1e-6)],
)
optim_wrapper = dict(autoencoder=dict(optimizer=dict(type='Adam', lr=2e-3, betas=(0.9, 0.99), fused=True)))
# a single last step is noisy, by decibels
custom_hooks = dict(ema=dict(type='EMAHook', decay=0.99))
# on the paper's transforms, and on one case or two of others
eq_transforms = dict(
    rotation=dict(type='Rotate'),
    scale=dict(type='IsotropicScale', interpolation='bicubic', antialias=True),
    flip=dict(type='Flip', axes=('horizontal',)),
    shift=dict(type='Shift', eval_shifts=(0.5,)),
    affine=dict(type='Affine', max_zoom=1.0, max_stretch=1.0, max_shear=0.0, max_shift=0.0),
    perspective=dict(type='Perspective', eval_angles=(20,)),
    warp=dict(type='Warp', eval_amplitudes=(0.1,)),
)
test_evaluators = [
    dict(type='ReconstructionMetric'),
    dict(type='ReconstructionFrechet', extractor=extractor, min_images=256),
    dict(type='EquivarianceError', transforms=eq_transforms),
    dict(type='LatentStatistics'),
    dict(type='LatentSpectrum'),
    dict(type='IntrinsicDimension'),
    # predictors of generation
    dict(type='VelocityVariance'),
    dict(type='NeighborConsistency'),
    dict(type='SpatialStructure'),
    dict(type='EffectiveRank'),
]
