"""The demo's equivariance: bicubic scales as the paper writes, antialiased as the evaluation is.

Without the release's low-resolution branch: in so few steps it costs decibels and gains nothing (docs/results.md).
"""

scale = dict(type='IsotropicScale', interpolation='bicubic', antialias=True)
objective = dict(
    type='ImplicitEquivariance',
    transform=dict(type='Compose', transforms=[scale, dict(type='Rotate')]),
    p_equivariance=0.55,
    p_low_resolution=0.0,
)
