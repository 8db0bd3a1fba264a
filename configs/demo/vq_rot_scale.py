"""Fine-tune the small VQ autoencoder with rotation + scale equivariance of the features before quantisation."""

from mmengine.config import read_base

with read_base():
    from .vq_plain import *
    from .._base_.objectives.rot_scale_demo import objective

model.update(objective=objective)
