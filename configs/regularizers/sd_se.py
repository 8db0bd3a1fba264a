"""SD-VAE with scale equivariance: smaller images from smaller latents in the same step.

Skorokhodov et al., arXiv 2502.14831: FID 3.07 to 2.49 (DiT-XL/2 on FLUX's autoencoder), at most 20,000 steps.
Measured on TAEF2: docs/results.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sd_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
model.objective = dict(type='DownsampledReconstruction')
