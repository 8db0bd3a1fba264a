"""Autoencoders: images to latents and back, with the normalisation of the latents."""

from eqzoo.autoencoders.kl import KLAutoencoder
from eqzoo.autoencoders.normalization import LatentNormalization

__all__ = ['KLAutoencoder', 'LatentNormalization']
