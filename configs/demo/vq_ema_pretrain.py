"""A small VQ autoencoder from scratch, whose codebook is a moving average of the features that chose each code."""

from mmengine.config import read_base

with read_base():
    from .vq_pretrain import *

autoencoder.update(quantizer=dict(type='EMACodebook', num_codes=256, channels=8))
model.update(autoencoder=autoencoder)
