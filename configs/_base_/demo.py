"""A small KL autoencoder (f4, 4 channels) on the built-in Shapes, for two CPU cores."""

from mmengine.config import read_base

with read_base():
    from .demo_kl import autoencoder
    from .runtime import *

model = dict(
    type='AutoencoderTraining',
    autoencoder=autoencoder,
    objective=dict(type='Plain'),
    reconstruction_loss=dict(type='ReconstructionLoss', pixel=dict(type='L1')),
    penalties=[dict(type='KLDivergence', weight=1e-6)],
)
train_dataloader = dict(batch_size=8, num_workers=0, dataset=dict(type='Shapes', num_images=4000, size=64, seed=0))
val_dataloader = dict(batch_size=32, num_workers=0, dataset=dict(type='Shapes', num_images=64, size=64, seed=1))
test_dataloader = dict(batch_size=32, num_workers=0, dataset=dict(type='Shapes', num_images=256, size=64, seed=2))
optim_wrapper = dict(autoencoder=dict(optimizer=dict(type='Adam', lr=1e-3, betas=(0.9, 0.99))))
custom_hooks = dict(pictures=dict(type='PictureHook', interval=500))
