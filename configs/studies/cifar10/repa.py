"""REPA of the studies on CIFAR-10: as its SiT, aligned with stored features of EfficientNet-Lite0."""

from mmengine.config import read_base

with read_base():
    from .sit import *

# 4 x 4 tokens, as many as the generator has
cache_encoder = dict(type='EfficientNetLite0Tokens', stride=16, size=64)
model.generator.network.update(type='AlignedTransformer', feature_dims=(112,), tap=2, projector_width=256)
model.generator.update(type='REPA')
