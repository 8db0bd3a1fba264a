"""EQ-VAE fine-tuning of SDXL-VAE against a ConvNeXt discriminator with LeCam, and Muon as the optimizer.

Not in the paper, whose discriminator is PatchGAN and whose optimizer is Adam.
"""

from mmengine.config import read_base

with read_base():
    from .sdxl_rot_scale import *

model.adversarial_loss.update(penalties=[dict(type='LeCam', weight=0.001)])
model.adversarial_loss.discriminator = dict(type='ConvNeXtDiscriminator')
optim_wrapper.autoencoder.optimizer = dict(type='MuonAdamW', lr=1e-4, betas=(0.5, 0.9))
