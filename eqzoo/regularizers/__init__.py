"""Latent regularisation: objectives (which pair is compared) and penalties on latents."""

from eqzoo.regularizers.objectives import Comparison, ExplicitEquivariance, ImplicitEquivariance, Plain
from eqzoo.regularizers.penalties import KLDivergence

__all__ = [
    'Comparison',
    'ExplicitEquivariance',
    'ImplicitEquivariance',
    'KLDivergence',
    'Plain',
]
