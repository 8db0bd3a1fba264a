"""DiT-B/1 on the latents of SD-VAE-16 with equivariance.

To reach (EQ-VAE v3, Table 1): FID 49.7 without guidance.
"""

from mmengine.config import read_base

with read_base():
    from .dit_b1_sd16 import *
    from .._base_.latents.sd16_eq import store, weights

model.autoencoder.update(weights=weights)
train_dataloader.dataset.update(root=store)
