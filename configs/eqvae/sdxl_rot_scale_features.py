"""EQ-VAE fine-tuning of SDXL-VAE against a discriminator on DINOv2's features, with R1, LeCam and DiffAug.

Not in the paper, whose discriminator is PatchGAN. Gradient checkpointing makes room for the vision network.
"""

from mmengine.config import read_base

with read_base():
    from .sdxl_rot_scale import *

model.adversarial_loss.update(
    penalties=[dict(type='R1', weight=10.0, every=16), dict(type='LeCam', weight=0.001)],
    augmentation=dict(type='DiffAug'),
)
model.adversarial_loss.discriminator = dict(type='FeatureDiscriminator', extractor=dict(type='DINOv2', size='s'))
model.checkpointing = True
