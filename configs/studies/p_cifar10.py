"""Table 8 in miniature, on CIFAR-10: how often a step is equivariant."""

from mmengine.config import read_base

with read_base():
    from .p_shapes import *

study.update(size='cifar10', data='CIFAR-10')
