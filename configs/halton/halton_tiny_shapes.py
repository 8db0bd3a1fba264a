"""A small Halton-MaskGIT of the built-in Shapes, on codes of finite scalar quantisation: minutes on two CPU cores.

python tools/train.py configs/demo/vq_fsq_pretrain.py
python tools/train.py configs/demo/vq_fsq_rot_scale.py
python tools/cache_latents.py configs/halton/halton_tiny_shapes.py
python tools/train.py configs/halton/halton_tiny_shapes.py
python tools/test.py configs/halton/halton_tiny_shapes.py
"""

from mmengine.config import read_base

with read_base():
    from .._base_.generator_demo import *
    from .._base_.demo_fsq import autoencoder

autoencoder.update(weights='work_dirs/demo/vq_fsq_rot_scale/iter_500.pth')
network = dict(type='HaltonTransformer', size=(4, 128, 4), num_codes=240, grid=8, num_classes=10, dropout=0.0)
model.update(autoencoder=autoencoder, generator=dict(type='MaskGIT', network=network, label_smoothing=0.0))
train_dataloader.dataset.update(root='work_dirs/latents/shapes_vq_fsq')
sampler = dict(type='Halton', steps=16, guidance=1.0, last_temperature=1 / 1.2, random_start=True)
custom_hooks.samples.sampler = sampling.sampler = sampler
