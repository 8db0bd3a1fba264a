"""Not in the paper, on CIFAR-10: equivariance from the first step on, instead of fine-tuned into it afterwards."""

from mmengine.config import read_base

with read_base():
    from .scratch_shapes import *

study.update(size='cifar10', data='CIFAR-10')
