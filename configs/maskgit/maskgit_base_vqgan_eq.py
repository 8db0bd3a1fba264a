"""MaskGIT on the codes of EQ-VAE's VQ-GAN, 300 epochs.

To reach (EQ-VAE v3, Tables 1, 3 and 11): FID 5.91, IS 228.8, precision 0.80, recall 0.55, with guidance 3; on the way
there after 50, 100 and 200 epochs: FID 11.1, 7.6 and 6.0.
"""

from mmengine.config import read_base

with read_base():
    from .maskgit_base_vqgan import *
    from .._base_.latents.vqgan_eq import store, weights

model.autoencoder.update(weights=weights)
train_dataloader.dataset.update(root=store)
