"""`dit_xl2_sd_eq` for 1.5 million steps, 300 epochs.

To reach (EQ-VAE v3, Table 4): FID 2.37, sFID 4.78, IS 277.3, precision 0.82, recall 0.57 with guidance, whose scale
the paper does not state: 1.5 is DiT's. Table 2: FID 8.8 without, sampling.sampler.guidance=none.
"""

from mmengine.config import read_base

with read_base():
    from .dit_xl2_sd_ft_ema import *
    from .._base_.latents.sd_eq import store, weights

model.autoencoder.update(weights=weights)
train_dataloader.dataset.update(root=store)
train_cfg.max_iters = 1_500_000
sampling.sampler.guidance = dict(type='ClassifierFree', scale=1.5, channels=3)
