"""LightningDiT-XL/1 after 64 epochs as published: no training needed; sample and test it directly.

To reach (its README): FID 2.11; without guidance, sampling.sampler.guidance=none, FID 5.14.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.generators.lightningdit import *

model.generator.network.weights = 'eqzoo://lightningdit-xl1-64ep'
