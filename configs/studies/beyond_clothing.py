"""Combinations that no paper has tried, on photographs of clothes, against plain latents and against EQ-VAE.

Written down before any of these arms was run; the gain of EQ over plain in the first seeds of `regularizers_clothing`
was known. 'plain' and 'EQ' are the same stages as there, and are not run again in the same --work-dir.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.studies.regularizers import (
        eq,
        eq_and_noise,
        eq_and_spectrum,
        eq_of_the_plane,
        noise,
        scale_equivariance_and_eq,
        scale_equivariance_and_noise,
        spectral_mask_and_noise,
    )
    from .regularizers_clothing import regularised, study, taef2

# the decoder goes on seeing noise when it is trained alone, as RAE's does (arXiv 2510.11690)
noise_kept = {
    **eq_and_noise,
    'phases': dict(
        regularise={
            'train_cfg.max_iters': 800,
            'param_scheduler': [dict(type='CosineAnnealingLR', T_max=800, eta_min_ratio=0.1, by_epoch=False)],
        },
        decoder={
            'model.objective': dict(type='Plain'),
            'model.corruptions': [noise],
            'model.penalties': [],
            'model.encoder_rate': 0.0,
        },
    ),
}
study.update(
    title='Regularisers together, on photographs',
    claim='A combination beats EQ-VAE at the same cost in reconstruction.',
    autoencoders={
        'plain': taef2,
        'EQ': dict(**regularised, change=eq),
        'EQ of the plane': dict(**regularised, change=eq_of_the_plane),
        'SE + noise': dict(**regularised, change=scale_equivariance_and_noise),
        'SE + EQ': dict(**regularised, change=scale_equivariance_and_eq),
        'DSM + noise': dict(**regularised, change=spectral_mask_and_noise),
        'EQ + ESM': dict(**regularised, change=eq_and_spectrum),
        'EQ + noise, kept': dict(**regularised, change=noise_kept),
    },
)
