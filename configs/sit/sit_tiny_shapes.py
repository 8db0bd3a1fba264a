"""A small SiT of the built-in Shapes: `configs/dit/dit_tiny_shapes.py` with velocities along a straight path."""

from mmengine.config import read_base

with read_base():
    from .._base_.generator_demo import *

network.update(learn_sigma=False)
model.update(generator=dict(type='SiT', network=network, process=dict(type='Interpolant')))
custom_hooks.samples.sampler = sampling.sampler = dict(
    type='ODE', method='heun', steps=25, guidance=dict(type='ClassifierFree', scale=1.5)
)
