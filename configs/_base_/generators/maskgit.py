"""MaskGIT as Besnier and Chen train it (arXiv 2310.14400, release 1), for as long as EQ-VAE's paper: 300 epochs.

Batches are of 256 images as EQ-VAE's paper says; the release's README says 512. Differs from the release, which crops
at random: codes are of centre crops and their mirror images. No moving average.
"""

from mmengine.config import read_base

with read_base():
    from ..data.imagenet_256_latents import *
    from ..evaluation.generation import *
    from ..runtime import *
    from ..schedules.generator import *

default_hooks.checkpoint = checkpoint
network = dict(type='MaskTransformer', size='base', num_classes=1000, dropout=0.1)
model = dict(
    type='GeneratorTraining',
    precision='bf16',
    generator=dict(type='MaskGIT', network=network, schedule='arccos', label_smoothing=0.1, loss_on='all'),
)
optim_wrapper.generator.update(clip_grad=dict(max_norm=1.0))
optim_wrapper.generator.optimizer.update(betas=(0.9, 0.96), weight_decay=1e-5)
param_scheduler = [dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=2500)]
train_cfg = dict(max_iters=1_501_368)  # 1,281,167 images are 5,004.56 batches
sampler = dict(type='Confidence', steps=8, guidance=3.0, gumbel_temperature=4.5)
custom_hooks = dict(samples=dict(type='SampleHook', interval=10_000, sampler=sampler))
sampling.sampler = sampler
