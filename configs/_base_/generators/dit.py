"""DiT-XL/2 with DiT's own settings, as EQ-VAE's paper trains it."""

from mmengine.config import read_base

with read_base():
    from ..data.imagenet_256_latents import *
    from ..evaluation.generation import *
    from ..runtime import *
    from ..schedules.generator import *
    from ..schedules.generator_400k import *

default_hooks.checkpoint = checkpoint
network = dict(
    type='DiffusionTransformer', size='XL', patch_size=2, latent_channels=4, latent_size=32, num_classes=1000
)
model = dict(
    type='GeneratorTraining',
    precision='bf16',
    generator=dict(type='DiT', network=network, process=dict(type='GaussianDiffusion')),
)
custom_hooks.samples.sampler = dict(type='DDPM', steps=50, guidance=dict(type='ClassifierFree', scale=4.0))
sampling.sampler = dict(type='DDPM', steps=250, guidance=None)
