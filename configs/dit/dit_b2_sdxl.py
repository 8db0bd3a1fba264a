"""DiT-B/2 on SDXL-VAE's latents.

To reach (EQ-VAE v3, Table 1): FID 46.0 without guidance.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.generators.dit import *
    from .._base_.latents.sdxl import autoencoder, latents, store

model.generator.network.update(size='B', **latents)
model.update(autoencoder=autoencoder)
train_dataloader.dataset.update(root=store)
