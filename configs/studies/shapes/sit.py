"""SiT of the studies on Shapes: as its DiT, with velocities along a straight path."""

from mmengine.config import read_base

with read_base():
    from .dit import *

network.update(learn_sigma=False)
model.update(generator=dict(type='SiT', network=network, process=dict(type='Interpolant')))
sampling.update(sampler=dict(type='ODE', method='heun', steps=8))
