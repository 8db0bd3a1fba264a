"""The training of `clothes-f8`, whose weights come with eqzoo: an autoencoder of photographs, from scratch.

python tools/train.py configs/demo/photographs_pretrain.py
python tools/latent_stats.py configs/demo/photographs_pretrain.py work_dirs/demo/photographs_pretrain/iter_4000.pth
python tools/convert.py work_dirs/demo/photographs_pretrain/iter_4000.pth clothes_f8 --to diffusers --dtype fp16
"""

from mmengine.config import read_base

with read_base():
    from .._base_.demo_photographs import *

autoencoder.update(weights=None)
train_cfg = dict(max_iters=4000, val_interval=500)
param_scheduler.append(dict(type='CosineAnnealingLR', begin=50, T_max=3950, eta_min=2e-5, by_epoch=False))
