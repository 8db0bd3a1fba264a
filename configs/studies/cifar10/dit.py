"""DiT of the studies on CIFAR-10; a study sets the autoencoder and the store."""

from mmengine.config import read_base

with read_base():
    from ..._base_.studies.generator import *
    from ..._base_.studies.kl import autoencoder
    from ..._base_.studies.run import *
    from ..._base_.studies.cifar10 import cache_dataloader, held_out, latents

train_dataloader = latents
train_cfg = dict(max_iters=4000)
default_hooks.checkpoint.update(interval=1000, keep_every=1000)
sampling.update(num_samples=2000, sampler=dict(type='DPMSolver', steps=10))
model = dict(
    type='GeneratorTraining',
    autoencoder=autoencoder,
    generator=dict(type='DiT', network=network, process=dict(type='GaussianDiffusion')),
)
test_evaluators = [
    dict(type='GenerationMetric', extractor=extractor, reference=held_out, metrics=('fd', 'pr'), min_images=2000),
    # without the decoder's loss
    dict(
        type='GenerationMetric',
        extractor=extractor,
        reference=held_out,
        metrics=('fd',),
        against='reconstructions',
        min_images=2000,
    ),
    dict(type='GenerationSlicedWasserstein', reference=held_out),
]
