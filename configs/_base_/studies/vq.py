"""The studies' VQ autoencoder: the demo's with a level less, f4. What it changes in the others' configs."""

from mmengine.config import read_base

with read_base():
    from ..demo_vq import *

autoencoder.update(block_out_channels=(16, 32, 64))
