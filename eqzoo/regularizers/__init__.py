"""Regularisers of latents: one objective, corruptions of latents, and penalties, in any combination."""

from eqzoo.regularizers.alignment import FeatureAlignment
from eqzoo.regularizers.corruptions import LatentMask, LatentNoise
from eqzoo.regularizers.objectives import DownsampledReconstruction, ImplicitEquivariance, Plain, SpectralMask
from eqzoo.regularizers.penalties import (
    ExplicitEquivariance,
    KLDivergence,
    LocalCorrelation,
    SpectrumMatching,
    VarianceExpansion,
)
from eqzoo.regularizers.step import LatentStep, ReconstructionPair

__all__ = [
    'DownsampledReconstruction',
    'ExplicitEquivariance',
    'FeatureAlignment',
    'ImplicitEquivariance',
    'KLDivergence',
    'LatentMask',
    'LatentNoise',
    'LatentStep',
    'LocalCorrelation',
    'Plain',
    'ReconstructionPair',
    'SpectralMask',
    'SpectrumMatching',
    'VarianceExpansion',
]
