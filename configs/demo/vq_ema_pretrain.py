"""A small VQ autoencoder from scratch, whose codebook is a moving average of the features that chose each code."""

from mmengine.config import read_base

with read_base():
    from .pretrain import *
    from .._base_.demo_vq import autoencoder, codebook_hook, codebook_usage, losses

autoencoder.update(quantizer=dict(type='EMACodebook', num_codes=256, channels=8))
model.update(autoencoder=autoencoder, **losses)
evaluators.append(codebook_usage)
custom_hooks.codebook = codebook_hook
