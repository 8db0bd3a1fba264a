"""TAEF2 with latent masked reconstruction: hidden cells behind a learned token.

SSVAE, arXiv 2512.05394: with LCR, video diffusion learns three times as fast.
Measured here: docs/results.md.
"""

from mmengine.config import read_base

with read_base():
    from ..eqvae.taef2_plain import *

model.corruptions = [dict(type='LatentMask')]
