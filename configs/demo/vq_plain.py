"""The control of `vq_rot_scale`: fine-tune the small VQ autoencoder with the plain objective."""

from mmengine.config import read_base

with read_base():
    from .plain import *
    from .._base_.demo_vq import autoencoder, codebook_usage, losses

autoencoder.update(weights='work_dirs/demo/vq_pretrain/iter_1200.pth')
model.update(autoencoder=autoencoder, **losses)
evaluators.append(codebook_usage)
