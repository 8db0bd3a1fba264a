"""MaskGIT of the studies on CIFAR-10; a study sets the autoencoder and the store."""

from mmengine.config import read_base

with read_base():
    from .dit import *
    from ..._base_.studies.vq import autoencoder

network = dict(
    type='MaskTransformer', size=(4, 96, 4), num_codes=256, grid=8, num_classes=10, dropout=0.0, init_std=0.02
)
model.update(autoencoder=autoencoder)
# not `update`, which would merge it with DiT's
model.generator = dict(type='MaskGIT', network=network)
# four times as many tokens as the others have
train_dataloader.update(batch_size=32)
sampling.update(sampler=dict(type='Confidence', steps=8, guidance=0.0))
