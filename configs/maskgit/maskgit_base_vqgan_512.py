"""MaskGIT on VQ-GAN's codes at 512 pixels, beginning from `maskgit_base_vqgan`.

To reach (arXiv 2310.14400): FID 7.26, IS 223.1, with guidance 2.8.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.generators.maskgit_512 import *
    from .._base_.latents.vqgan import autoencoder

model.update(autoencoder=autoencoder)
model.generator.network.update(num_codes=1024, weights='work_dirs/maskgit/maskgit_base_vqgan/iter_1501368.pth')
train_dataloader.dataset.update(root='data/latents/imagenet_512_vqgan')
