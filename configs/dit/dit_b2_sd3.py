"""DiT-B/2 on SD3-VAE's latents.

To reach (EQ-VAE v3, Table 1): FID 58.9 without guidance.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.generators.dit import *
    from .._base_.latents.sd3 import autoencoder, latents, store

model.generator.network.update(size='B', **latents)
model.update(autoencoder=autoencoder)
train_dataloader.dataset.update(root=store)
