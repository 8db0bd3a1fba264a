"""A small VQ autoencoder from scratch, for two CPU cores: where `vq_plain` and `vq_rot_scale` start."""

from mmengine.config import read_base

with read_base():
    from .pretrain import *
    from .._base_.demo_vq import autoencoder, codebook_hook, codebook_usage, losses

model.update(autoencoder=autoencoder, **losses)
evaluators.append(codebook_usage)
custom_hooks.codebook = codebook_hook
