"""DiT-B/2 on the latents of SDXL-VAE with equivariance.

To reach (EQ-VAE v3, Table 1): FID 35.9 without guidance.
"""

from mmengine.config import read_base

with read_base():
    from .dit_b2_sdxl import *
    from .._base_.latents.sdxl_eq import store, weights

model.autoencoder.update(weights=weights)
train_dataloader.dataset.update(root=store)
