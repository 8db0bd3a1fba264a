"""The demo's subject: the same fine-tuning with rotation + scale equivariance."""

from mmengine.config import read_base

with read_base():
    from .plain import *

model.update(objective=objective)
