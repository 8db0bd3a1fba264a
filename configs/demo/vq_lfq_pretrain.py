"""A small autoencoder from scratch with lookup-free quantisation: 256 codes of eight signs, and no codebook."""

from mmengine.config import read_base

with read_base():
    from .pretrain import *
    from .._base_.demo_vq import autoencoder, codebook_usage, losses

autoencoder.update(quantizer=dict(type='LFQ', channels=8))
model.update(autoencoder=autoencoder, **losses)
evaluators.append(codebook_usage)
custom_hooks.codebook = dict(type='CodebookHook')
