"""Losses: comparing reconstructions with images, by pixels, perceptually and by a discriminator."""

from eqzoo.losses.adversarial import AdversarialLoss, PatchGAN
from eqzoo.losses.perceptual import LPIPS, FeatureDistance
from eqzoo.losses.reconstruction import L1, L2, ReconstructionLoss

__all__ = [
    'L1',
    'L2',
    'LPIPS',
    'AdversarialLoss',
    'FeatureDistance',
    'PatchGAN',
    'ReconstructionLoss',
]
