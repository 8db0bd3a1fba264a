"""LightningDiT-XL/1 after 800 epochs as published: no training needed; sample and test it directly.

To reach (its README): FID 1.35; without guidance, sampling.sampler.guidance=none, FID 2.17. It was trained for a
million steps, with uniform times in the later part, which its code does not state.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.generators.lightningdit import *

model.generator.network.weights = 'eqzoo://lightningdit-xl1-800ep'
train_cfg.max_iters = 1_000_000
sampling.sampler.guidance = dict(type='ClassifierFree', scale=6.7, interval=(0.0, 0.875), channels=3)
