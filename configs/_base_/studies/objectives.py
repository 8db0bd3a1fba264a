"""Objectives of the studies: rotation and scale as the paper writes them, and each variant of its ablations.

Scales are resampled as in the release, bilinear and without a filter; `rot_scale_antialiased` is the control, since a
filter lets latents hide detail in high frequencies (docs/differences.md). Without the release's low-resolution
branch, which costs decibels in short runs and gains nothing (docs/results/single_runs.md).
"""

turn = dict(type='Rotate')
scale = dict(type='IsotropicScale')
scale_of_each_axis = dict(type='AnisotropicScale')
turn_and_scale = dict(type='Compose', transforms=[scale, turn])
antialiased_scale = dict(type='IsotropicScale', interpolation='bicubic', antialias=True)
turn_and_antialiased_scale = dict(type='Compose', transforms=[antialiased_scale, turn])

implicit = dict(type='ImplicitEquivariance', p_equivariance=0.5, p_low_resolution=0.0)
rot_scale = dict(**implicit, transform=turn_and_scale)
rot_scale_antialiased = dict(**implicit, transform=turn_and_antialiased_scale)
# Table 5
rotation = dict(**implicit, transform=turn)
isotropic = dict(**implicit, transform=scale)
anisotropic = dict(**implicit, transform=scale_of_each_axis)
rot_anisotropic = dict(**implicit, transform=dict(type='Compose', transforms=[scale_of_each_axis, turn]))
# transforms that the paper leaves to later work
flip = dict(**implicit, transform=dict(type='Flip'))
shift = dict(**implicit, transform=dict(type='Shift'))
affine = dict(**implicit, transform=dict(type='Affine'))
perspective = dict(**implicit, transform=dict(type='Perspective'))
warp = dict(**implicit, transform=dict(type='Warp'))
# Table 7: the paper's λ; whether it is of the sum or of the mean is not stated (docs/differences.md)
kl = dict(type='KLDivergence', weight=1e-6)
explicit = [dict(type='ExplicitEquivariance', transform=turn_and_scale, weight=0.1), kl]
explicit_stop_gradient = [
    dict(type='ExplicitEquivariance', transform=turn_and_scale, weight=0.1, stop_gradient=True),
    kl,
]
