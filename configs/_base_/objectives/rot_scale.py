"""The paper's default objective: quarter turns after isotropic scales, in half of the steps."""

objective = dict(
    type='ImplicitEquivariance',
    transform=dict(type='Compose', transforms=[dict(type='IsotropicScale', minimum=0.25), dict(type='Rotate')]),
    p_equivariance=0.5,
    p_low_resolution=0.25,
)
