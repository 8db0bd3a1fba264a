"""The demo's control: fine-tune with the plain objective."""

from mmengine.config import read_base

with read_base():
    from .._base_.demo import *

model.autoencoder.update(weights='work_dirs/demo/pretrain/iter_1200.pth')
train_cfg = dict(max_iters=500, val_interval=500)
# At a constant rate the last step is noisy, by decibels: the average of the last hundred is measured.
custom_hooks.ema = dict(type='EMAHook', decay=0.99)
