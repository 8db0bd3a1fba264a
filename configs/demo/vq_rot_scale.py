"""Fine-tune the small VQ autoencoder with rotation + scale equivariance of the features before quantisation."""

from mmengine.config import read_base

with read_base():
    from .plain import *
    from .._base_.demo_vq import autoencoder, codebook_usage, losses
    from .._base_.objectives.rot_scale_demo import objective

autoencoder.update(weights='work_dirs/demo/vq_pretrain/iter_1200.pth')
model.update(autoencoder=autoencoder, objective=objective, **losses)
evaluators.append(codebook_usage)
