"""EQ-VAE fine-tuning of SDXL-VAE on a GPU of 8 GB: with checkpointing and micro-batches.

Differs from `sdxl_rot_scale` by rounding, and in that the adversarial loss is balanced for 8 images at a time, not 10.
`python tools/benchmark.py memory configs/eqvae/sdxl_rot_scale.py` has the GiB (docs/training.md).
"""

from mmengine.config import read_base

with read_base():
    from .sdxl_rot_scale import *

model.update(checkpointing=True, micro_batch_size=8)
model.reconstruction_loss.micro_batch_size = 1
model.adversarial_loss.micro_batch_size = 1
