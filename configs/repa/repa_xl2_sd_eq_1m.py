"""`repa_xl2_sd_eq` for a million steps, 200 epochs.

To reach (EQ-VAE v3, Table 4): FID 1.70, sFID 5.13, IS 283.0, precision 0.79, recall 0.62 with guidance in an
interval, which the paper does not state: 1.8 in (0, 0.7) is REPA's. Table 2: FID 5.9 without,
sampling.sampler.guidance=none.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.generators.repa import *
    from .._base_.latents.sd import autoencoder, latents
    from .._base_.latents.sd_eq import store, weights

model.generator.network.update(**latents)
model.update(autoencoder=autoencoder)
model.autoencoder.update(weights=weights)
train_dataloader.dataset.update(root=store)
train_cfg.max_iters = 1_000_000
sampling.sampler.guidance = dict(type='ClassifierFree', scale=1.8, interval=(0.0, 0.7))
