"""EQ-VAE fine-tuning of VQ-GAN, rotation + isotropic scale of the features before quantisation.

To reach (EQ-VAE v3, Tables 1 and 12): rFID 7.54, gFID 5.9 (MaskGIT), R(θ) 0.64, S(s) 0.55, PSNR 19.61, SSIM 0.56.
The paper names no more of this recipe: the losses are taming's, as VQ-GAN was trained.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.vqgan_f16_1024 import autoencoder
    from .._base_.eqvae import *
    from .._base_.losses.taming import adversarial_loss, reconstruction_loss

model.update(
    autoencoder=autoencoder, reconstruction_loss=reconstruction_loss, adversarial_loss=adversarial_loss, penalties=[]
)
evaluators.append(dict(type='CodebookUsage'))
test_evaluators.append(dict(type='CodebookUsage'))
custom_hooks.codebook = dict(type='CodebookHook')
