"""Tables 3 and 11 in miniature, on CIFAR-10: MaskGIT over training steps, on plain and on EQ codes."""

from mmengine.config import read_base

with read_base():
    from .maskgit_shapes import *

study.update(size='cifar10', data='CIFAR-10')
