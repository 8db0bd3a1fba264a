"""SDXL-VAE in two phases: EQ-VAE's rotation + scale, and then the decoder alone on the resulting latents."""

from mmengine.config import read_base

with read_base():
    from ..eqvae.sdxl_rot_scale import *

phases = dict(
    regularise={},
    decoder={'model.objective': dict(type='Plain'), 'model.penalties': [], 'model.encoder_rate': 0.0},
)
