"""Table 7 in miniature, on CIFAR-10: the explicit loss, also with a stopped gradient, against the implicit one."""

from mmengine.config import read_base

with read_base():
    from .explicit_shapes import *

study.update(size='cifar10', data='CIFAR-10')
