"""Table 7 in miniature, on Shapes: the explicit loss, also with a stopped gradient, against the implicit one."""

from mmengine.config import read_base

with read_base():
    from .._base_.studies.grid import columns, dit, kl, score
    from .._base_.studies.objectives import explicit, explicit_stop_gradient, rot_scale

study = dict(
    title='Explicit against implicit regularisation',
    claim=(
        'EQ-VAE, Table 7 (gFID, rFID, R(θ), S(s)): plain 43.5, 0.90, 0.93, 0.80; explicit 141.3, 117.93, '
        '0.32, 0.11, with stopped gradient 134.7, 109.25, 0.35, 0.13, as latents collapse; implicit 34.1, '
        '0.82, 0.49, 0.15.'
    ),
    size='shapes',
    data='Shapes',
    autoencoders={
        'plain': kl,
        'explicit': dict(**kl, against='plain', change={'model.penalties': explicit}),
        'explicit, stopped gradient': dict(**kl, against='plain', change={'model.penalties': explicit_stop_gradient}),
        'implicit': dict(**kl, against='plain', change={'model.objective': rot_scale}),
    },
    generators={'DiT': dit},
    columns=columns,
    score=score,
)
