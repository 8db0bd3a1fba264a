"""EQ-VAE fine-tuning of SDXL-VAE on photographs of any shape: aspect-ratio buckets at 256 and 512 pixels.

Not in the paper, which trains on squares of 256 pixels. A batch is of one shape, for whose latents the transform is
drawn; 64 images of 512 pixels are as many pixels as 160 of about 320.
"""

from mmengine.config import read_base

with read_base():
    from .sdxl_rot_scale import *

train_dataloader.update(batch_size=64)
train_dataloader.dataset = dict(type='BucketedImageFolder', root='data/openimages/train', size=(256, 512))
