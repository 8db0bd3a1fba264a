"""A small generator of the built-in Shapes, on the latents of the demo's autoencoder, for two CPU cores.

`python tools/demo.py --images shapes` trains the autoencoders. A leaf adds `model.generator` and the samplers.
"""

from mmengine.config import read_base

with read_base():
    from .demo_kl import autoencoder
    from .runtime import *
    from .schedules.generator import *

autoencoder.update(weights='work_dirs/demo/plain/iter_500.pth')
shapes = dict(type='Shapes', num_images=4000, size=64, seed=0)
network = dict(
    type='DiffusionTransformer', size=(4, 128, 4), patch_size=2, latent_channels=4, latent_size=16, num_classes=10
)
model = dict(type='GeneratorTraining', autoencoder=autoencoder)
cache_dataloader = dict(batch_size=32, num_workers=0, dataset=shapes)
train_dataloader = dict(
    batch_size=64, num_workers=0, dataset=dict(type='LatentStore', root='work_dirs/latents/shapes_plain')
)
optim_wrapper.generator.optimizer.lr = 5e-4
train_cfg = dict(max_iters=1500)
default_hooks.checkpoint = dict(checkpoint, interval=500)
custom_hooks = dict(
    ema=dict(type='EMAHook', decay=0.99),
    samples=dict(type='SampleHook', interval=500),
)
sampling = dict(num_samples=500, batch_size=50, labels='balanced', seed=0)
test_evaluators = [
    dict(
        type='GenerationMetric',
        extractor=dict(type='EfficientNetLite0'),
        reference=shapes,
        metrics=('fd', 'pr'),
        min_images=500,
    ),
    dict(type='GenerationSlicedWasserstein', reference=shapes),
]
