"""Tables 2, 9 and 10 in miniature, on Shapes: DiT, SiT and REPA over training steps, on plain and on EQ latents."""

from mmengine.config import read_base

with read_base():
    from .._base_.studies.grid import columns, curve, dit, kl, repa, score, sit
    from .._base_.studies.objectives import rot_scale, rot_scale_antialiased

study = dict(
    title='Generators over training steps, on plain and on EQ latents',
    claim=(
        'EQ-VAE, Tables 2, 9 and 10: at equal steps gFID is lower on EQ latents (DiT-XL/2 19.5 to 14.5, '
        'SiT-XL/2 17.2 to 16.1, REPA 7.9 to 7.5 at 400K), and the plain score is reached in a fraction of the '
        'steps: DiT-XL/2 seven times, REPA four times as fast.'
    ),
    size='shapes',
    data='Shapes',
    autoencoders={
        'KL': kl,
        'KL + EQ': dict(**kl, against='KL', change={'model.objective': rot_scale}),
        'KL + EQ, antialiased': dict(**kl, against='KL', change={'model.objective': rot_scale_antialiased}),
    },
    generators={
        'DiT': {**dit, 'scores': curve},
        'SiT': {**sit, 'scores': curve},
        'REPA': {**repa, 'scores': curve},
    },
    columns=columns,
    score=score,
)
