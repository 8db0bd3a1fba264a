"""DiT-B/2 on EQ-VAE's latents.

To reach (EQ-VAE v3, Tables 1 and 2): FID 34.1 without guidance.
"""

from mmengine.config import read_base

with read_base():
    from .dit_b2_sd import *
    from .._base_.latents.sd_eq import store, weights

model.autoencoder.update(weights=weights)
train_dataloader.dataset.update(root=store)
