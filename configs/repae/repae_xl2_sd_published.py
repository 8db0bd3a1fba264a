"""REPA-E's SiT-XL/2 and its SD-VAE as published, both in one file: no training needed; sample and test it directly.

To reach (REPA-E's release): FID 1.67; 4.07 without guidance, sampling.sampler.guidance=none.
"""

from mmengine.config import read_base

with read_base():
    from .repae_xl2_sd import *

model.generator.network.weights = 'eqzoo://repae-xl2-sd-256'
sampling.sampler.guidance = dict(type='ClassifierFree', scale=2.2, interval=(0.0, 0.65))
