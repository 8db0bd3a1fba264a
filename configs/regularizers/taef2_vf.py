"""TAEF2 with alignment with a vision network's features (VF loss).

VA-VAE, arXiv 2501.01423, with DINOv2: LightningDiT learns 2.5 times as fast on f16, 32 channels.
Measured here: docs/results.md.
"""

from mmengine.config import read_base

with read_base():
    from ..eqvae.taef2_plain import *

model.penalties = [dict(type='FeatureAlignment', encoder=dict(type='EfficientNetLite0Tokens', stride=8))]
