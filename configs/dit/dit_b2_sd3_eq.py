"""DiT-B/2 on the latents of SD3-VAE with equivariance.

To reach (EQ-VAE v3, Table 1): FID 54.0 without guidance.
"""

from mmengine.config import read_base

with read_base():
    from .dit_b2_sd3 import *
    from .._base_.latents.sd3_eq import store, weights

model.autoencoder.update(weights=weights)
train_dataloader.dataset.update(root=store)
