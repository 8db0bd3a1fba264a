"""Table 8 in miniature, on Shapes: how often a step is equivariant."""

from mmengine.config import read_base

with read_base():
    from .._base_.studies.grid import columns, dit, kl, score
    from .._base_.studies.objectives import rot_scale

study = dict(
    title='How often a step is equivariant',
    claim=(
        'EQ-VAE, Table 8 (gFID, rFID): p_α = 0.3: 35.4, 0.78; 0.5: 34.1, 0.82; 0.7: 34.4, 0.88, where p_α is '
        'said to be the share of plain steps. rFID should then fall with p_α; it rises as if p_α were the '
        'share of equivariant ones.'
    ),
    size='shapes',
    data='Shapes',
    autoencoders={
        'plain': kl,
        'p = 0.3': dict(**kl, against='plain', change={'model.objective': {**rot_scale, 'p_equivariance': 0.3}}),
        'p = 0.5': dict(**kl, against='plain', change={'model.objective': rot_scale}),
        'p = 0.7': dict(**kl, against='plain', change={'model.objective': {**rot_scale, 'p_equivariance': 0.7}}),
    },
    generators={'DiT': dit},
    columns=columns,
    score=score,
)
