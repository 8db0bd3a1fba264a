"""MaskGIT at 512 pixels as released, on VQ-GAN's codes: no training needed; sample and test it directly.

To reach (arXiv 2310.14400): FID 7.26, IS 223.1 with guidance 2.8. To train it yourself: `maskgit_base_vqgan_512`.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.generators.maskgit_512 import *
    from .._base_.latents.vqgan import autoencoder

model.update(autoencoder=autoencoder)
model.generator.network.update(num_codes=1024, weights='eqzoo://maskgit-base-512', weights_grid=None)
train_dataloader.dataset.update(root='data/latents/imagenet_512_vqgan')
