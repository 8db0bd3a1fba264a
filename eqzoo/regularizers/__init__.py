"""Latent regularisation: objectives, which choose the pair that is compared, and penalties on latents."""

from eqzoo.regularizers.objectives import ExplicitEquivariance, ImplicitEquivariance, Plain, ReconstructionPair
from eqzoo.regularizers.penalties import KLDivergence

__all__ = [
    'ExplicitEquivariance',
    'ImplicitEquivariance',
    'KLDivergence',
    'Plain',
    'ReconstructionPair',
]
