"""Halton-MaskGIT-S at 384 pixels as released: no training needed; sample and test it directly.

To reach (Halton-MaskGIT's README, July 2025): FID 6.11, IS 241, in 32 steps with guidance 1.0; there against images of
256 pixels, here against the reference that tools/reference.py makes of the same size.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.generators.halton import *
    from .._base_.latents.llamagen import autoencoder

model.update(autoencoder=autoencoder)
model.generator.network.update(num_codes=16384, grid=24, size='small', weights='eqzoo://halton-small-384')
cache_dataloader.dataset.update(size=384)
train_dataloader.dataset.update(root='data/latents/imagenet_384_llamagen')
sampler.update(guidance=1.0)
custom_hooks.samples.sampler = sampling.sampler = sampler
test_evaluators[0].update(reference='data/references/imagenet_384.npz')
