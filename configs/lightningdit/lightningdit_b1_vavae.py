"""LightningDiT-B/1 on VA-VAE's latents: the small one, 100,000 steps of 256 images. No published number."""

from mmengine.config import read_base

with read_base():
    from .._base_.generators.lightningdit import *

model.generator.network.size = 'B'
train_dataloader.batch_size = 256
optim_wrapper.generator.optimizer.lr = 1e-4
train_cfg.max_iters = 100_000
