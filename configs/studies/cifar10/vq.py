"""Fine-tuning of the VQ autoencoder of the studies on CIFAR-10, plainly; a study sets weights and objective."""

from mmengine.config import read_base

with read_base():
    from .kl import *
    from ..._base_.studies.vq import autoencoder, codebook_usage, losses

model.update(autoencoder=autoencoder, **losses)
test_evaluators.append(codebook_usage)
