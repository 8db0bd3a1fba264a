"""Control: VQ-GAN fine-tuned for the same number of steps with the plain objective.

The paper has no such row; the released weights have (v3, Tables 1 and 12): rFID 7.94, gFID 6.8 (MaskGIT),
R(θ) 1.35, S(s) 1.22, PSNR 19.41, SSIM 0.54.
"""

from mmengine.config import read_base

with read_base():
    from .vqgan_rot_scale import *

model.objective = dict(type='Plain')
