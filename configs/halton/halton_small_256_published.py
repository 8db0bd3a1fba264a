"""Halton-MaskGIT-S at 256 pixels as released: no training needed; sample and test it directly.

To reach (Halton-MaskGIT's README, July 2025): FID 6.40, IS 255, in 32 steps with guidance 1.0.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.generators.halton import *
    from .._base_.latents.llamagen import autoencoder, latents, store

model.update(autoencoder=autoencoder)
model.generator.network.update(latents, size='small', weights='eqzoo://halton-small-256')
train_dataloader.dataset.update(root=store)
sampler.update(guidance=1.0)
custom_hooks.samples.sampler = sampling.sampler = sampler
