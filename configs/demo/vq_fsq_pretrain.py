"""A small autoencoder from scratch with finite scalar quantisation: 240 codes of three channels, and no codebook."""

from mmengine.config import read_base

with read_base():
    from .pretrain import *
    from .._base_.demo_fsq import autoencoder
    from .._base_.demo_vq import codebook_usage, losses

model.update(autoencoder=autoencoder, **losses)
evaluators.append(codebook_usage)
custom_hooks.codebook = dict(type='CodebookHook')
