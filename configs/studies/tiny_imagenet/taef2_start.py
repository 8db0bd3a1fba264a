"""TAEF2 adapted plainly to 64 pixels of Tiny ImageNet: as to photographs of clothes."""

from mmengine.config import read_base

with read_base():
    from ..clothing.taef2_start import *
    from ..._base_.studies.tiny_imagenet import test_dataloader, train_dataloader
