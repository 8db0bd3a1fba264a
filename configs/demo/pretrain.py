"""The demo's start: a small autoencoder trained from scratch for about two minutes."""

from mmengine.config import read_base

with read_base():
    from .._base_.demo import *

train_cfg = dict(max_iters=1200, val_interval=1200)
optim_wrapper.autoencoder.optimizer.update(lr=2e-3)
