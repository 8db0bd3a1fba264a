"""Tables 2, 9 and 10 in miniature, on CIFAR-10: DiT, SiT and REPA over training steps, on plain and on EQ latents."""

from mmengine.config import read_base

with read_base():
    from .generators_shapes import *

study.update(size='cifar10', data='CIFAR-10')
