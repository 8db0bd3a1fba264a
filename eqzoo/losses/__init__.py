"""Losses, and the objectives that say what an autoencoder's step reconstructs."""

from eqzoo.losses.adversarial import AdversarialLoss, PatchGAN
from eqzoo.losses.comparison import Comparison
from eqzoo.losses.features import FeatureDistance
from eqzoo.losses.kl import KLDivergence
from eqzoo.losses.objectives import ExplicitEquivariance, ImplicitEquivariance, Plain
from eqzoo.losses.perceptual import LPIPS
from eqzoo.losses.pixel import L1, L2
from eqzoo.losses.reconstruction import ReconstructionLoss

__all__ = [
    'L1',
    'L2',
    'LPIPS',
    'AdversarialLoss',
    'Comparison',
    'ExplicitEquivariance',
    'FeatureDistance',
    'ImplicitEquivariance',
    'KLDivergence',
    'PatchGAN',
    'Plain',
    'ReconstructionLoss',
]
