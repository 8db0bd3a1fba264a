"""DiT-XL/2 as published, on SD-VAE-FT-EMA's latents: no training needed; sample and test it directly.

To reach (EQ-VAE v3, Table 4; DiT): FID 2.27, sFID 4.60, IS 278.2, precision 0.83, recall 0.57; decoded by SD-VAE,
model.autoencoder.weights=eqzoo://sd-vae: FID 2.47, sFID 5.18, IS 276.1, precision 0.82, recall 0.57.
Table 2: FID 9.6 without guidance, sampling.sampler.guidance=none. It was trained for 7 million steps; to train
it from scratch: model.generator.network.weights=none.
"""

from mmengine.config import read_base

with read_base():
    from .dit_xl2_sd_ft_ema import *

model.generator.network.update(weights='eqzoo://dit-xl2-256')
train_cfg.max_iters = 7_000_000
sampling.sampler.guidance = dict(type='ClassifierFree', scale=1.5, channels=3)
