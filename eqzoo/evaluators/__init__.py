"""Evaluators: what can be said in numbers about an autoencoder."""

from eqzoo.evaluators.base import Evaluator
from eqzoo.evaluators.codebook import CodebookUsage
from eqzoo.evaluators.equivariance import EquivarianceError
from eqzoo.evaluators.latents import LatentStatistics
from eqzoo.evaluators.reconstruction import ReconstructionMetric
from eqzoo.evaluators.table import format_table
from eqzoo.evaluators.view import AutoencoderView

__all__ = [
    'AutoencoderView',
    'CodebookUsage',
    'EquivarianceError',
    'Evaluator',
    'LatentStatistics',
    'ReconstructionMetric',
    'format_table',
]
