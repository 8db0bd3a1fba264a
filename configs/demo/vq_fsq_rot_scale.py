"""Fine-tune the small autoencoder of `vq_fsq_pretrain` with rotation + scale equivariance of its bounded features."""

from mmengine.config import read_base

with read_base():
    from .vq_rot_scale import *
    from .vq_fsq_pretrain import autoencoder

autoencoder.update(weights='work_dirs/demo/vq_fsq_pretrain/iter_1200.pth')
model.update(autoencoder=autoencoder)
