"""The demo on the photographs that come with eqzoo, for two CPU cores.

f8 and without norms, as TAEF2: it is easy to see that its rotated latents do not decode. At f4 a cell of 4 x 4 pixels
has little to rotate; a small KL autoencoder is nearly equivariant by itself.
"""

from mmengine.config import read_base

with read_base():
    from .demo import *
    from .autoencoders.clothes_f8 import autoencoder  # in place of the demo's

model.autoencoder = autoencoder
model.penalties = []  # it has no posterior
photographs = dict(type='Clothes', size=64)
train_dataloader.dataset = dict(photographs, crop='random_square', flip=True, part=(0.0, 0.82))
val_dataloader.dataset = dict(photographs, part=(0.82, 0.85))
test_dataloader.dataset = dict(photographs, part=(0.85, 1.0))
train_cfg = dict(max_iters=500, val_interval=500)
# Adam's first steps would undo what was learned.
param_scheduler = [dict(type='LinearLR', start_factor=0.02, end=50, by_epoch=False)]
# At a constant rate the last step is noisy, by decibels: the average of the last hundred is measured.
custom_hooks.ema = dict(type='EMAHook', decay=0.99)
