"""The KL autoencoder of the studies on Shapes, in a single run: the steps of start and fine-tuning together."""

from mmengine.config import read_base

with read_base():
    from .kl_start import *

train_cfg.update(max_iters=2200)
