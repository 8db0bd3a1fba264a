"""Control: DC-AE f32 fine-tuned for the same number of steps with the plain objective."""

from mmengine.config import read_base

with read_base():
    from .dcae_f32_rot_scale import *

model.objective = dict(type='Plain')
