"""SiT-XL/2 as published, on SD-VAE-FT-EMA's latents: no training needed; sample and test it directly.

To reach (EQ-VAE v3, Table 4; SiT): FID 2.06, sFID 4.50, IS 270.3, precision 0.82, recall 0.59. The published
network counts time from noise to data, and has outputs that nothing trained. It was trained for 7 million steps.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.generators.sit import *
    from .._base_.latents.sd import autoencoder, latents
    from .._base_.latents.sd_ft_ema import store, weights

model.generator.network.update(learn_sigma=True, weights='eqzoo://sit-xl2-256', **latents)
model.update(autoencoder=autoencoder)
model.autoencoder.update(weights=weights)
train_dataloader.dataset.update(root=store)
model.generator.process.update(network_time='noise_to_data')
train_cfg.max_iters = 7_000_000
sampling.sampler.guidance = dict(type='ClassifierFree', scale=1.5, channels=3)
