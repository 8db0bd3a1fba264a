"""MaskGIT at 512 pixels: 32 x 32 codes, and 15 steps of sampling as published.

Training continues from the network at 256 pixels, 750,000 steps of 128 images, as the release's README says. The README
does not state how positions are initialised; here they are resized.
"""

from mmengine.config import read_base

with read_base():
    from .maskgit import *

model.generator.network.update(grid=32, weights_grid=16)
cache_dataloader.dataset.update(size=512)
train_dataloader.update(batch_size=128)
train_cfg.max_iters = 750_000
sampler.update(steps=15, guidance=2.8, gumbel_temperature=7.0)
custom_hooks.samples.sampler = sampling.sampler = sampler
# ADM's batch, from https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/imagenet/512/
test_evaluators[0].update(reference='data/VIRTUAL_imagenet512.npz')
