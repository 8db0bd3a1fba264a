"""A small MaskGIT of the built-in Shapes, on plain codes: minutes on two CPU cores.

    python tools/train.py configs/demo/vq_pretrain.py
    python tools/train.py configs/demo/vq_plain.py
    python tools/cache_latents.py configs/maskgit/maskgit_tiny_shapes.py
    python tools/train.py configs/maskgit/maskgit_tiny_shapes.py
    python tools/test.py configs/maskgit/maskgit_tiny_shapes.py

Pictures of samples are in work_dirs/maskgit/maskgit_tiny_shapes/pictures.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.generator_demo import *
    from .._base_.demo_vq import autoencoder

autoencoder.update(weights='work_dirs/demo/vq_plain/iter_500.pth')
network = dict(
    type='MaskTransformer', size=(4, 128, 4), num_codes=256, grid=8, num_classes=10, dropout=0.0, init_std=0.02
)
model.update(autoencoder=autoencoder, generator=dict(type='MaskGIT', network=network))
train_dataloader.dataset.update(root='work_dirs/latents/shapes_vq_plain')
custom_hooks.samples.sampler = sampling.sampler = dict(type='Confidence', steps=8, guidance=1.0)
