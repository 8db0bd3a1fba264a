"""`dit_tiny_shapes` on equivariant latents: the same commands with eq in place of plain.

python tools/latent_stats.py configs/demo/rot_scale.py work_dirs/demo/eq/iter_500.pth --normalization per_channel
"""

from mmengine.config import read_base

with read_base():
    from .dit_tiny_shapes import *

model.autoencoder.update(weights='work_dirs/demo/eq/iter_500.pth')
train_dataloader.dataset.update(root='work_dirs/latents/shapes_eq')
