"""Regularisers of latents on equal terms, on forty classes of Tiny ImageNet: TAEF2, then SiT on its latents."""

from mmengine.config import read_base

with read_base():
    from .regularizers_clothing import *

study.update(size='tiny_imagenet', data='Tiny ImageNet')
