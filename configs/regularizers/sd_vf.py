"""SD-VAE with alignment with a vision network's features (VF loss).

VA-VAE, arXiv 2501.01423, with DINOv2: LightningDiT learns 2.5 times as fast on f16, 32 channels.
Measured on TAEF2: docs/results.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sd_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
model.objective = dict(type='Plain')
model.penalties.append(dict(type='FeatureAlignment', encoder=dict(type='DINOv2Tokens', size='b', grid=32)))
