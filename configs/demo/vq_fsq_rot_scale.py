"""Fine-tune the small autoencoder of `vq_fsq_pretrain` with rotation + scale equivariance of its features."""

from mmengine.config import read_base

with read_base():
    from .plain import *
    from .._base_.demo_fsq import autoencoder
    from .._base_.demo_vq import codebook_usage, losses
    from .._base_.objectives.rot_scale_demo import objective

autoencoder.update(weights='work_dirs/demo/vq_fsq_pretrain/iter_1200.pth')
model.update(autoencoder=autoencoder, objective=objective, **losses)
evaluators.append(codebook_usage)
