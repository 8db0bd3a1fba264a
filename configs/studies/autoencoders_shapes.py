"""Table 1 in miniature, on Shapes: plain fine-tuning against EQ-VAE's, of three kinds of autoencoder."""

from mmengine.config import read_base

with read_base():
    from .._base_.studies.grid import columns, dit, kl, maskgit, score, tiny, vq
    from .._base_.studies.objectives import rot_scale, rot_scale_antialiased

eq = {'model.objective': rot_scale}
antialiased = {'model.objective': rot_scale_antialiased}
study = dict(
    title='Autoencoders: plain fine-tuning against EQ-VAE',
    claim=(
        'EQ-VAE, Table 1: both errors fall, rFID does not rise, and gFID of a generator on the latents falls '
        '(SD-VAE: R(θ) 0.89 to 0.56, S(s) 0.69 to 0.43, rFID 0.90 to 0.82, gFID 43.8 to 34.1).'
    ),
    size='shapes',
    data='Shapes',
    autoencoders={
        'tiny': dict(**tiny, generators=['DiT']),
        'tiny + EQ': dict(**tiny, generators=['DiT'], against='tiny', change=eq),
        'tiny + EQ, antialiased': dict(**tiny, generators=['DiT'], against='tiny', change=antialiased),
        'KL': dict(**kl, generators=['DiT']),
        'KL + EQ': dict(**kl, generators=['DiT'], against='KL', change=eq),
        'KL + EQ, antialiased': dict(**kl, generators=['DiT'], against='KL', change=antialiased),
        'VQ': dict(**vq, generators=['MaskGIT']),
        'VQ + EQ': dict(**vq, generators=['MaskGIT'], against='VQ', change=eq),
        'VQ + EQ, antialiased': dict(**vq, generators=['MaskGIT'], against='VQ', change=antialiased),
    },
    generators={'DiT': dit, 'MaskGIT': maskgit},
    columns=columns,
    score=score,
)
