"""REPA-E's SiT-XL/1 and its VA-VAE as published, both in one file: no training needed; sample and test it directly.

To reach (REPA-E's release): FID 1.73; 4.05 without guidance, sampling.sampler.guidance=none.
"""

from mmengine.config import read_base

with read_base():
    from .repae_xl1_vavae import *

model.generator.network.weights = 'eqzoo://repae-xl1-vavae-256'
sampling.sampler.guidance = dict(type='ClassifierFree', scale=1.9, interval=(0.0, 0.825))
