"""DiT of the studies on Shapes; a study sets the autoencoder and the store."""

from mmengine.config import read_base

with read_base():
    from ..._base_.studies.generator import *
    from ..._base_.studies.kl import autoencoder
    from ..._base_.studies.run import *
    from ..._base_.studies.shapes import cache_dataloader, latents, training_images

train_dataloader = latents
train_cfg = dict(max_iters=400)
default_hooks.checkpoint.update(interval=100, keep_every=100)
sampling.update(sampler=dict(type='DPMSolver', steps=10))
model = dict(
    type='GeneratorTraining',
    autoencoder=autoencoder,
    generator=dict(type='DiT', network=network, process=dict(type='GaussianDiffusion')),
)
test_evaluators = [
    dict(type='GenerationMetric', extractor=extractor, reference=training_images, metrics=('fd', 'pr'), min_images=500),
    # without the decoder's loss
    dict(
        type='GenerationMetric',
        extractor=extractor,
        reference=training_images,
        metrics=('fd',),
        against='reconstructions',
        min_images=500,
    ),
    dict(type='GenerationSlicedWasserstein', reference=training_images),
]
