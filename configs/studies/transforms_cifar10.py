"""Table 5 in miniature, on CIFAR-10: which transforms; beside the paper's, those that it leaves to others."""

from mmengine.config import read_base

with read_base():
    from .transforms_shapes import *

study.update(size='cifar10', data='CIFAR-10')
