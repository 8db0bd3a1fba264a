"""The paper's default objective: isotropic scaling, then rotation by 90, 180 or 270 degrees, in half of the steps."""

objective = dict(
    type='ImplicitEquivariance',
    transform=dict(type='Compose', transforms=[dict(type='IsotropicScale', minimum=0.25), dict(type='Rotate')]),
    p_equivariance=0.5,
    p_low_resolution=0.25,
)
