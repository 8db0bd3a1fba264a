"""Evaluators: metrics of autoencoders (reconstruction, equivariance, latents) and of generated samples."""

from eqzoo.evaluators.base import AutoencoderView, Evaluator, SampleView
from eqzoo.evaluators.codebook import CodebookUsage
from eqzoo.evaluators.consistency import NeighborConsistency
from eqzoo.evaluators.dimension import IntrinsicDimension
from eqzoo.evaluators.equivariance import EquivarianceError
from eqzoo.evaluators.frechet import ReconstructionFrechet
from eqzoo.evaluators.generation import GenerationMetric
from eqzoo.evaluators.interpolation import InterpolationFrechet
from eqzoo.evaluators.latent_frechet import GenerationLatentFrechet
from eqzoo.evaluators.latents import EffectiveRank, LatentStatistics
from eqzoo.evaluators.reconstruction import PerceptualMetric, ReconstructionMetric
from eqzoo.evaluators.sliced import GenerationSlicedWasserstein, ReconstructionSlicedWasserstein
from eqzoo.evaluators.spectrum import LatentSpectrum
from eqzoo.evaluators.structure import SpatialStructure
from eqzoo.evaluators.velocity import VelocityVariance

__all__ = [
    'AutoencoderView',
    'CodebookUsage',
    'EffectiveRank',
    'EquivarianceError',
    'Evaluator',
    'GenerationLatentFrechet',
    'GenerationMetric',
    'GenerationSlicedWasserstein',
    'InterpolationFrechet',
    'IntrinsicDimension',
    'LatentSpectrum',
    'LatentStatistics',
    'NeighborConsistency',
    'PerceptualMetric',
    'ReconstructionFrechet',
    'ReconstructionMetric',
    'ReconstructionSlicedWasserstein',
    'SampleView',
    'SpatialStructure',
    'VelocityVariance',
]
