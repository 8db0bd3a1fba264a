"""The VQ autoencoder of the studies on Shapes, from scratch: where every fine-tuning starts."""

from mmengine.config import read_base

with read_base():
    from .kl_start import *
    from ..._base_.studies.vq import autoencoder, codebook_hook, codebook_usage, losses

model.update(autoencoder=autoencoder, **losses)
test_evaluators.append(codebook_usage)
custom_hooks.codebook = codebook_hook
