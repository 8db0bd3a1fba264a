"""Fine-tuning of the KL autoencoder of the studies on Shapes, plainly; a study sets weights and objective."""

from mmengine.config import read_base

with read_base():
    from .kl_start import *

train_cfg.update(max_iters=400)
