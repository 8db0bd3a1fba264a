"""Control: MaskGIT on VQ-GAN's codes for 130 epochs, after which the equivariant codes are as good as these after 300.

The paper has no such row; `maskgit_base_vqgan_eq_130ep` has FID 6.80.
"""

from mmengine.config import read_base

with read_base():
    from .maskgit_base_vqgan import *

train_cfg.max_iters = 650_593
