"""SiT-XL/2: velocities along straight paths, sampled by 250 steps of the SDE (arXiv 2401.08740).

Differs from SiT's code: the network has no outputs that the loss leaves out.
"""

from mmengine.config import read_base

with read_base():
    from ..data.imagenet_256_latents import *
    from ..evaluation.generation import *
    from ..runtime import *
    from ..schedules.generator import *
    from ..schedules.generator_400k import *

default_hooks.checkpoint = checkpoint
network = dict(
    type='DiffusionTransformer',
    size='XL',
    patch_size=2,
    latent_channels=4,
    latent_size=32,
    num_classes=1000,
    learn_sigma=False,
)
model = dict(
    type='GeneratorTraining',
    precision='bf16',
    generator=dict(type='SiT', network=network, process=dict(type='Interpolant')),
)
custom_hooks.samples.sampler = dict(
    type='ODE', method='heun', steps=25, guidance=dict(type='ClassifierFree', scale=4.0)
)
sampling.sampler = dict(type='SDE', steps=250, guidance=None)
