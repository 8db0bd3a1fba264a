"""MaskGIT on the codes of EQ-VAE's VQ-GAN at 512 pixels, beginning from `maskgit_base_vqgan_eq`.

The paper has no such row; `maskgit_base_vqgan_512` has FID 7.26 to beat.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.generators.maskgit_512 import *
    from .._base_.latents.vqgan import autoencoder
    from .._base_.latents.vqgan_eq import weights

model.update(autoencoder=autoencoder)
model.autoencoder.update(weights=weights)
model.generator.network.update(num_codes=1024, weights='work_dirs/maskgit/maskgit_base_vqgan_eq/iter_1501368.pth')
train_dataloader.dataset.update(root='data/latents/imagenet_512_vqgan_eq')
