"""The demo's equivariance: rotation and scale, resampled as in the release.

Without the release's low-resolution branch: in so few steps it costs decibels and gains nothing
(docs/results/single_runs.md).
"""

objective = dict(
    type='ImplicitEquivariance',
    transform=dict(type='Compose', transforms=[dict(type='IsotropicScale'), dict(type='Rotate')]),
    p_equivariance=0.55,
    p_low_resolution=0.0,
)
