"""Regularisation of TAEF2 on Tiny ImageNet, and then its decoder alone: as on photographs of clothes."""

from mmengine.config import read_base

with read_base():
    from ..clothing.taef2 import *
    from ..._base_.studies.tiny_imagenet import test_dataloader, train_dataloader
