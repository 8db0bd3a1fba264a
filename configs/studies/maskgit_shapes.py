"""Tables 3 and 11 in miniature, on Shapes: MaskGIT over training steps, on plain and on EQ codes."""

from mmengine.config import read_base

with read_base():
    from .._base_.studies.grid import columns, curve, maskgit, score, vq
    from .._base_.studies.objectives import rot_scale, rot_scale_antialiased

study = dict(
    title='MaskGIT over training steps, on plain and on EQ codes',
    claim=(
        'EQ-VAE, Tables 3 and 11: 6.80 after 300 epochs on VQ-GAN, which EQ reaches after 130, with 5.91 after 300.'
    ),
    size='shapes',
    data='Shapes',
    autoencoders={
        'VQ': vq,
        'VQ + EQ': dict(**vq, against='VQ', change={'model.objective': rot_scale}),
        'VQ + EQ, antialiased': dict(**vq, against='VQ', change={'model.objective': rot_scale_antialiased}),
    },
    generators={'MaskGIT': {**maskgit, 'scores': curve}},
    columns={**columns, 'autoencoder': [*columns['autoencoder'], 'codebook/usage', 'codebook/perplexity']},
    score=score,
)
