"""`configs/sit/sit_tiny_shapes.py` aligned with EfficientNet-Lite0, whose features are stored with the latents."""

from mmengine.config import read_base

with read_base():
    from ..sit.sit_tiny_shapes import *

# 8 x 8 tokens, as many as the generator has
cache_encoder = dict(type='EfficientNetLite0Tokens', stride=16, size=128)
model.generator.network.update(type='AlignedTransformer', feature_dims=(112,), tap=2, projector_width=256)
model.generator.update(type='REPA')
train_dataloader.dataset.update(root='work_dirs/latents/shapes_repa')
