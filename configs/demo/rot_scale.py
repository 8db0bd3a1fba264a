"""The demo's subject: the same fine-tuning with rotation + scale equivariance.

Scales are bicubic as the paper writes, and antialiased as the evaluation is.
"""

from mmengine.config import read_base

with read_base():
    from .plain import *

scale = dict(type='IsotropicScale', interpolation='bicubic', antialias=True)
model.update(
    objective=dict(
        type='ImplicitEquivariance',
        transform=dict(type='Compose', transforms=[scale, dict(type='Rotate')]),
        low_resolution=scale,
    )
)
