"""Control: FLUX.2's VAE fine-tuned for the same number of steps with the plain objective."""

from mmengine.config import read_base

with read_base():
    from .flux2_rot_scale import *

model.objective = dict(type='Plain')
