"""Control: VA-VAE fine-tuned for the same number of steps with the plain objective."""

from mmengine.config import read_base

with read_base():
    from .vavae_rot_scale import *

model.objective = dict(type='Plain')
