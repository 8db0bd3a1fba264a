"""A small autoencoder from scratch with lookup-free quantisation: 256 codes of eight signs, and no codebook."""

from mmengine.config import read_base

with read_base():
    from .vq_pretrain import *

autoencoder.update(quantizer=dict(type='LFQ', channels=8))
model.update(autoencoder=autoencoder)
custom_hooks.codebook = dict(type='CodebookHook')
