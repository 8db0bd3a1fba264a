"""The subject of `make demo`: the same fine-tuning with rotation + scale equivariance."""

from mmengine.config import read_base

with read_base():
    from .._base_.demo_photographs import *
    from .._base_.objectives.rot_scale_demo import objective

model.update(objective=objective)
