"""A small DiT of the built-in Shapes, on plain latents: minutes on two CPU cores.

    python tools/demo.py --images shapes
    python tools/latent_stats.py configs/demo/plain.py work_dirs/demo/plain/iter_500.pth --normalization per_channel
    python tools/cache_latents.py configs/dit/dit_tiny_shapes.py
    python tools/train.py configs/dit/dit_tiny_shapes.py
    python tools/test.py configs/dit/dit_tiny_shapes.py

Pictures of samples are in work_dirs/dit/dit_tiny_shapes/pictures.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.generator_demo import *

model.update(generator=dict(type='DiT', network=network, process=dict(type='GaussianDiffusion')))
custom_hooks.samples.sampler = sampling.sampler = dict(
    type='DDPM', steps=50, guidance=dict(type='ClassifierFree', scale=1.5)
)
