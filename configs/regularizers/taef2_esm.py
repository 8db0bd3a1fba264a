"""TAEF2 with encoder spectrum matching: latents with the images' spectrum.

Spectrum Matching, arXiv 2603.14645: 0.01 beside a loss that is a mean; this loss is a sum over 3 x 256 x 256.
Measured here: docs/results.md.
"""

from mmengine.config import read_base

with read_base():
    from ..eqvae.taef2_plain import *

model.penalties = [dict(type='SpectrumMatching', weight=2000.0)]
