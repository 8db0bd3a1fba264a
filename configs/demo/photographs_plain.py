"""The control of `make demo`: fine-tune `clothes-f8` with the plain objective."""

from mmengine.config import read_base

with read_base():
    from .._base_.demo_photographs import *
