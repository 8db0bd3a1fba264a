"""MaskGIT as released, on VQ-GAN's codes: no training needed; sample and test it directly.

To reach (arXiv 2310.14400; EQ-VAE v3, Table 3): FID 6.80, IS 214.0 with guidance 3. To train it yourself:
`maskgit_base_vqgan`.
"""

from mmengine.config import read_base

with read_base():
    from .maskgit_base_vqgan import *

model.generator.network.update(weights='eqzoo://maskgit-base-256')
