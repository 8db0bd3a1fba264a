"""EQ-VAE fine-tuning of DC-AE f64, rotation + isotropic scale.

Not in the paper. At 512 pixels its grid has 8 x 8 cells, so scales are 2/8 to 7/8. It is deterministic: there is no KL
divergence.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.dcae_f64 import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder, micro_batch_size=2, penalties=[])
train_dataloader.dataset.update(size=512)
val_dataloader.dataset.update(size=512)
test_dataloader.dataset.update(size=512)
