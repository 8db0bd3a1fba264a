"""Losses: comparing reconstructions with images, by pixels, perceptually and by a discriminator."""

from eqzoo.losses.adversarial import AdversarialLoss, PatchGAN
from eqzoo.losses.discriminators import ConvNeXtDiscriminator, FeatureDiscriminator
from eqzoo.losses.perceptual import LPIPS, FeatureDistance
from eqzoo.losses.reconstruction import L1, L2, ReconstructionLoss
from eqzoo.losses.stabilization import R1, DiffAug, DiscriminatorStep, LeCam

__all__ = [
    'L1',
    'L2',
    'LPIPS',
    'R1',
    'AdversarialLoss',
    'ConvNeXtDiscriminator',
    'DiffAug',
    'DiscriminatorStep',
    'FeatureDiscriminator',
    'FeatureDistance',
    'LeCam',
    'PatchGAN',
    'ReconstructionLoss',
]
