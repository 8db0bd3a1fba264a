"""Regularisation of TAEF2 on Tiny ImageNet, and then its decoder alone; a study sets method and weights.

The second phase is plain in every arm: what differs at its end is the latents.
"""

from mmengine.config import read_base

with read_base():
    from .taef2_start import *

model.update(encoder_rate=1.0)
train_cfg.update(max_iters=400)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=400, eta_min_ratio=0.1, by_epoch=False)]
phases = dict(
    regularise={
        'train_cfg.max_iters': 800,
        'param_scheduler': [dict(type='CosineAnnealingLR', T_max=800, eta_min_ratio=0.1, by_epoch=False)],
    },
    decoder={
        'model.objective': dict(type='Plain'),
        'model.corruptions': [],
        'model.penalties': [],
        'model.encoder_rate': 0.0,
    },
)
