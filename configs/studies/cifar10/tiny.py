"""Fine-tuning of the tiny autoencoder of the studies on CIFAR-10, plainly; a study sets weights and objective."""

from mmengine.config import read_base

with read_base():
    from .tiny_start import *

train_cfg.update(max_iters=4000)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=4000, eta_min_ratio=0.1, by_epoch=False)]
