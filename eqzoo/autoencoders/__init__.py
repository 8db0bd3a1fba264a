"""Autoencoders: images to latents and back, with the normalisation of the latents."""

from eqzoo.autoencoders.base import Autoencoder, Bottleneck
from eqzoo.autoencoders.kl import KLAutoencoder
from eqzoo.autoencoders.loading import load_autoencoder
from eqzoo.autoencoders.normalization import LatentNormalization
from eqzoo.autoencoders.posterior import Deterministic
from eqzoo.autoencoders.tiny import TinyAutoencoder
from eqzoo.autoencoders.vq import VQAutoencoder

__all__ = [
    'Autoencoder',
    'Bottleneck',
    'Deterministic',
    'KLAutoencoder',
    'LatentNormalization',
    'TinyAutoencoder',
    'VQAutoencoder',
    'load_autoencoder',
]
