"""REPA-E from SD-VAE-FT-MSE, with SiT-XL/2.

To reach (REPA-E's release, 80 epochs): FID 4.07 without guidance. FID 1.67 with
dict(type='ClassifierFree', scale=2.2, interval=(0.0, 0.65)) as sampling.sampler.guidance.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.latents.sd import autoencoder, latents
    from .._base_.repae import *

model.generator.network.update(**latents)
model.update(autoencoder=autoencoder)
model.autoencoder.update(weights='eqzoo://sd-vae-ft-mse')
