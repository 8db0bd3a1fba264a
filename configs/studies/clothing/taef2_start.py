"""TAEF2 adapted plainly to 64 pixels of photographs of clothes: where every regularised fine-tuning starts.

The encoder at a tenth of the rate, so that the latents stay near the released ones.
"""

from mmengine.config import read_base

with read_base():
    from ..._base_.autoencoders.taef2 import autoencoder
    from ..._base_.studies.autoencoder import *
    from ..._base_.studies.regularizers import equivariance_error
    from ..._base_.studies.run import *
    from ..._base_.studies.clothing import test_dataloader, train_dataloader

model.update(autoencoder=autoencoder, penalties=[], encoder_rate=0.1)
optim_wrapper.autoencoder.optimizer.update(lr=3e-4)
train_cfg = dict(max_iters=300)
test_evaluators[2] = equivariance_error
