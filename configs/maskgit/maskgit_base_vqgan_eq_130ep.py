"""MaskGIT on the codes of EQ-VAE's VQ-GAN, 130 epochs.

To reach (EQ-VAE v3, Table 3): FID 6.80, IS 188.1, with guidance 3.
"""

from mmengine.config import read_base

with read_base():
    from .maskgit_base_vqgan import *
    from .._base_.latents.vqgan_eq import store, weights

model.autoencoder.update(weights=weights)
train_dataloader.dataset.update(root=store)
train_cfg.max_iters = 650_593
