"""LightningDiT-XL/1 on VA-VAE's latents, 64 epochs: ten hours on eight H800 (its README).

To reach (LightningDiT, Table 3 and README): FID 2.11; without guidance, sampling.sampler.guidance=none, FID 5.14.
Its own latents can be read in place: train_dataloader.dataset="{'type':'LightningDiTLatents','root':'…','flip':True}".
"""

from mmengine.config import read_base

with read_base():
    from .._base_.generators.lightningdit import *
