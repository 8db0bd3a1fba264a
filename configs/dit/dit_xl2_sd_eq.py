"""DiT-XL/2 on EQ-VAE's latents.

To reach (EQ-VAE v3, Tables 2 and 9): FID 14.5, sFID 5.6, IS 81.5, precision 0.63, recall 0.66 without guidance.
"""

from mmengine.config import read_base

with read_base():
    from .dit_xl2_sd_ft_ema import *
    from .._base_.latents.sd_eq import store, weights

model.autoencoder.update(weights=weights)
train_dataloader.dataset.update(root=store)
