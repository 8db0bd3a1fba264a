"""MaskGIT as Halton-MaskGIT trains it (arXiv 2503.17076, release 2): 1,500,000 steps of 256 images.

Differs from the release, whose codes are of random crops: they are of centre crops and their mirror images. No moving
average, as released.
"""

from mmengine.config import read_base

with read_base():
    from ..data.imagenet_256_latents import *
    from ..evaluation.generation import *
    from ..runtime import *
    from ..schedules.generator import *

default_hooks.checkpoint = checkpoint
network = dict(type='HaltonTransformer', size='base', num_classes=1000, registers=1, dropout=0.1)
model = dict(
    type='GeneratorTraining',
    precision='bf16',
    generator=dict(type='MaskGIT', network=network, schedule='arccos', label_smoothing=0.0, loss_on='all'),
)
optim_wrapper.generator.update(clip_grad=dict(max_norm=1.0))
optim_wrapper.generator.optimizer.update(weight_decay=0.03)
train_cfg = dict(max_iters=1_500_000)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=2500),
    # the last tenth
    dict(type='CosineAnnealingLR', eta_min=1e-6, T_max=150_000, by_epoch=False, begin=1_350_000, end=1_500_000),
]
# the temperatures of the release's example; those of its table are not stated
sampler = dict(type='Halton', steps=32, guidance=0.7, last_temperature=1 / 1.2, random_start=True)
custom_hooks = dict(samples=dict(type='SampleHook', interval=10_000, sampler=sampler))
sampling.sampler = sampler
