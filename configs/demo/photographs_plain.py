"""The control of `make demo`: fine-tune `clothes-f8` with the plain objective."""

from mmengine.config import read_base

with read_base():
    from .._base_.demo_photographs import *

train_cfg = dict(max_iters=500, val_interval=500)
# Adam's first steps would undo what was learned.
param_scheduler = [dict(type='LinearLR', start_factor=0.02, end=50, by_epoch=False)]
# At a constant rate the last step is noisy, by decibels: the average of the last hundred is measured.
custom_hooks.ema = dict(type='EMAHook', decay=0.99)
