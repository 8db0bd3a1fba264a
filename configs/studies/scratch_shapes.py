"""Not in the paper, on Shapes: equivariance from the first step on, instead of fine-tuned into it afterwards."""

from mmengine.config import read_base

with read_base():
    from .._base_.studies.grid import columns, curve, dit, kl, kl_scratch, score
    from .._base_.studies.objectives import rot_scale

study = dict(
    title='From the first step on',
    claim=(
        'EQ-VAE fine-tunes pretrained autoencoders alone, for five epochs; whether equivariance is learned more easily '
        'by a network that has not learned without it yet is not asked. Here all arms have as many steps.'
    ),
    size='shapes',
    data='Shapes',
    autoencoders={
        'KL': kl,
        'KL + EQ': dict(**kl, against='KL', change={'model.objective': rot_scale}),
        'KL + EQ from scratch': dict(**kl_scratch, against='KL', change={'model.objective': rot_scale}),
    },
    generators={'DiT': {**dit, 'scores': curve}},
    columns={**columns, 'autoencoder': [*columns['autoencoder'], 'eq_err/flip', 'eq_err/shift']},
    score=score,
)
