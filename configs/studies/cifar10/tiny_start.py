"""The tiny autoencoder of the studies on CIFAR-10, from scratch: where every fine-tuning starts."""

from mmengine.config import read_base

with read_base():
    from ..._base_.studies.autoencoder import *
    from ..._base_.studies.run import *
    from ..._base_.studies.tiny import autoencoder
    from ..._base_.studies.cifar10 import test_dataloader, train_dataloader

model.update(autoencoder=autoencoder, penalties=[])
train_cfg = dict(max_iters=2500)
