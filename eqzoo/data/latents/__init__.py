"""The latent store: written once, read by generators."""

from eqzoo.data.latents.foreign import LightningDiTLatents, NpyLatents
from eqzoo.data.latents.store import LatentDataset, LatentStore

__all__ = [
    'LatentDataset',
    'LatentStore',
    'LightningDiTLatents',
    'NpyLatents',
]
