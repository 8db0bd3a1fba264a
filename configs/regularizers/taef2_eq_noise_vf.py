"""TAEF2 with three methods at once: EQ-VAE's objective, noise on what is decoded, alignment; then the decoder alone."""

from mmengine.config import read_base

with read_base():
    from ..eqvae.taef2_rot_scale import *

model.update(
    corruptions=[dict(type='LatentNoise', sigma=0.5, kind='drawn')],
    penalties=[dict(type='FeatureAlignment', encoder=dict(type='EfficientNetLite0Tokens', stride=8))],
)
phases = dict(
    regularise={},
    decoder={
        'model.objective': dict(type='Plain'),
        'model.corruptions': [],
        'model.penalties': [],
        'model.encoder_rate': 0.0,
    },
)
