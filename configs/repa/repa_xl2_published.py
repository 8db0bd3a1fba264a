"""REPA's SiT-XL/2 as published, on SD-VAE-FT-EMA's latents: no training needed; sample and test it directly.

To reach (EQ-VAE v3, Table 4; REPA): FID 1.42, sFID 4.70, IS 305.7, precision 0.80, recall 0.65. Table 2: FID 5.9
without guidance, sampling.sampler.guidance=none. It counts time from data to noise, and was trained for 4 million
steps, on latents of SD-VAE-FT-MSE, which has the same encoder.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.generators.repa import *
    from .._base_.latents.sd import autoencoder, latents
    from .._base_.latents.sd_ft_ema import store, weights

model.generator.network.update(weights='eqzoo://repa-xl2-256', **latents)
model.update(autoencoder=autoencoder)
model.autoencoder.update(weights=weights)
train_dataloader.dataset.update(root=store)
train_cfg.max_iters = 4_000_000
sampling.sampler.guidance = dict(type='ClassifierFree', scale=1.8, interval=(0.0, 0.7))
