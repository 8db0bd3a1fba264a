"""The KL autoencoder of the studies on CIFAR-10, in a single run: the steps and rates of start and fine-tuning."""

from mmengine.config import read_base

with read_base():
    from .kl_start import *

train_cfg.update(max_iters=6500)
param_scheduler = [
    # with its own end: by default that is the end of the run, and a shorter run, as with --smoke, would end first
    dict(type='CosineAnnealingLR', begin=2500, end=6500, T_max=4000, eta_min_ratio=0.1, by_epoch=False)
]
