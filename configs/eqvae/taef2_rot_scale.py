"""EQ-VAE fine-tuning of TAEF2, rotation + isotropic scale, with L1 only, so that it needs no other weights and no GPU.

Not in the paper. Reached on CIFAR-10's photographs: see docs/results/single_runs.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.taef2 import autoencoder
    from .._base_.data.openimages_256 import *
    from .._base_.evaluation.offline import *
    from .._base_.objectives.rot_scale import objective
    from .._base_.runtime import *

model = dict(
    type='AutoencoderTraining',
    autoencoder=autoencoder,
    objective=objective,
    reconstruction_loss=dict(type='ReconstructionLoss', pixel=dict(type='L1')),
)
train_dataloader.update(batch_size=16)
train_cfg = dict(max_iters=1000, val_interval=500)
optim_wrapper = dict(autoencoder=dict(optimizer=dict(type='Adam', lr=3e-4, betas=(0.9, 0.99))))
custom_hooks = dict(
    pictures=dict(type='PictureHook', interval=500),
    ema=dict(type='EMAHook', decay=0.99),
)
