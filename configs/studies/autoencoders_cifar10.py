"""Table 1 in miniature, on CIFAR-10: plain fine-tuning against EQ-VAE's, of three kinds of autoencoder."""

from mmengine.config import read_base

with read_base():
    from .autoencoders_shapes import *

study.update(size='cifar10', data='CIFAR-10')
