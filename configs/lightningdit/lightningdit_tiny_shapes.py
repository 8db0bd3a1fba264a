"""A small LightningDiT of the built-in Shapes: `configs/sit/sit_tiny_shapes.py` with its network, losses and steps.

Gradients are clipped, since the direction of a new network's prediction, zero, has an enormous one.
"""

from mmengine.config import read_base

with read_base():
    from ..sit.sit_tiny_shapes import *

model.generator.network.update(mlp='swiglu', norm='rms', rope=True)
model.generator.process.update(network_time='noise_to_data', time_sampling='lognormal', direction_weight=1.0)
optim_wrapper.generator.update(clip_grad=dict(max_norm=1.0))
custom_hooks.samples.sampler = sampling.sampler = dict(
    type='ShiftedODE', method='euler', steps=49, shift=1 / 0.3, guidance=dict(type='ClassifierFree', scale=1.5)
)
