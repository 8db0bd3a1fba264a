"""Fine-tuning of the tiny autoencoder of the studies on Shapes, plainly; a study sets weights and objective."""

from mmengine.config import read_base

with read_base():
    from .tiny_start import *

train_cfg.update(max_iters=400)
