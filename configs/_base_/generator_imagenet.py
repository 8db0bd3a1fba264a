"""What DiT, SiT and REPA share on ImageNet at 256 pixels: 400,000 steps of 256 images, 80 epochs."""

from mmengine.config import read_base

with read_base():
    from .data.imagenet_256_latents import *
    from .evaluation.generation import *
    from .generator_runtime import *

model = dict(type='GeneratorTraining', precision='bf16')
train_cfg = dict(max_iters=400_000)
custom_hooks = [
    dict(type='EMAHook', decay=0.9999),
    dict(type='SampleHook', interval=10_000),
]
