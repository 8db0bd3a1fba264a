"""The KL autoencoder of the studies on Shapes, in one go: as many steps as its start and its fine-tuning together."""

from mmengine.config import read_base

with read_base():
    from .kl_start import *

train_cfg.update(max_iters=2200)
