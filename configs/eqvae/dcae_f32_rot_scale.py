"""EQ-VAE fine-tuning of DC-AE f32, rotation + isotropic scale.

Not in the paper. At 512 pixels its grid has 16 x 16 cells. It is deterministic: there is no KL divergence.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.dcae_f32 import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder, micro_batch_size=2, penalties=[])
train_dataloader.dataset.update(size=512)
val_dataloader.dataset.update(size=512)
test_dataloader.dataset.update(size=512)
