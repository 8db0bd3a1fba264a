"""SiT-B/2 on EQ-VAE's latents.

To reach (EQ-VAE v3, Table 2): FID 31.2 without guidance.
"""

from mmengine.config import read_base

with read_base():
    from .sit_b2_sd_ft_ema import *
    from .._base_.latents.sd_eq import store, weights

model.autoencoder.update(weights=weights)
train_dataloader.dataset.update(root=store)
