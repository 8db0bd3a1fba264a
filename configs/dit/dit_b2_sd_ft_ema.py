"""DiT-B/2 on SD-VAE-FT-EMA's latents.

To reach (EQ-VAE v3, Tables 2 and 6): FID 43.5 without guidance.
"""

from mmengine.config import read_base

with read_base():
    from .dit_b2_sd import *
    from .._base_.latents.sd_ft_ema import store, weights

model.autoencoder.update(weights=weights)
train_dataloader.dataset.update(root=store)
