"""REPA: SiT-XL/2 whose eighth block is aligned with DINOv2-B; gradients clipped, nothing mirrored (arXiv 2410.06940).

Batches contain images beside latents, which saves storing 500 GB of features; reading the images needs workers.
"""

from mmengine.config import read_base

with read_base():
    from .sit import *

model.generator.network.update(type='AlignedTransformer', feature_dims=(768,), tap=8)
model.generator.update(type='REPA', encoder=dict(type='DINOv2Tokens', size='b'), weight=0.5)
train_dataloader.update(num_workers=8)
train_dataloader.dataset.update(flip=False, images=imagenet)
optim_wrapper.generator.update(clip_grad=dict(max_norm=1.0))
