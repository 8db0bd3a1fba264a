"""DiT-B/1 on SD-VAE-16's latents, 256 tokens as with the others.

To reach (EQ-VAE v3, Table 1): FID 64.1 without guidance.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.generators.dit import *
    from .._base_.latents.sd16 import autoencoder, latents, store

model.generator.network.update(size='B', patch_size=1, **latents)
model.update(autoencoder=autoencoder)
train_dataloader.dataset.update(root=store)
