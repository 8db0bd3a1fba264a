"""SiT of 64 tokens on a study's latents of Tiny ImageNet: patch 1, times from a logistic normal."""

from mmengine.config import read_base

with read_base():
    from ..._base_.autoencoders.taef2 import autoencoder
    from ..._base_.studies.generator import *
    from ..._base_.studies.run import *
    from ..._base_.studies.tiny_imagenet import cache_dataloader, held_out, latents

train_dataloader = latents
train_cfg = dict(max_iters=5000)
default_hooks.checkpoint.update(interval=1250, keep_every=1250)
network = dict(
    type='DiffusionTransformer',
    size=(4, 128, 4),
    patch_size=1,
    latent_channels=32,
    latent_size=8,
    num_classes=40,
    learn_sigma=False,
)
model = dict(
    type='GeneratorTraining',
    autoencoder=autoencoder,
    generator=dict(type='SiT', network=network, process=dict(type='Interpolant', time_sampling='lognormal')),
)
sampling.update(num_samples=2000, sampler=dict(type='ODE', method='heun', steps=8))
test_evaluators = [
    dict(type='GenerationMetric', extractor=extractor, reference=held_out, metrics=('fd', 'pr'), min_images=500),
    dict(
        type='GenerationMetric',
        extractor=extractor,
        reference=held_out,
        metrics=('fd',),
        against='reconstructions',
        min_images=500,
    ),
    dict(type='GenerationLatentFrechet', reference=held_out, features=('cells',)),
    dict(type='GenerationSlicedWasserstein', reference=held_out),
]
