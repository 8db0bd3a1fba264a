"""Losses: how two images are compared."""

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
