"""Autoencoders: images to latents and back, with the normalisation of the latents."""

from eqzoo.autoencoders.base import Autoencoder, Bottleneck, Deterministic
from eqzoo.autoencoders.diffusers import DiffusersAutoencoder
from eqzoo.autoencoders.kl import KLAutoencoder
from eqzoo.autoencoders.quantizers import FSQ, LFQ, EMACodebook, NormalizedCodebook, Quantized, Quantizer
from eqzoo.autoencoders.tiny import TinyAutoencoder
from eqzoo.autoencoders.vq import VQAutoencoder

__all__ = [
    'FSQ',
    'LFQ',
    'Autoencoder',
    'Bottleneck',
    'Deterministic',
    'DiffusersAutoencoder',
    'EMACodebook',
    'KLAutoencoder',
    'NormalizedCodebook',
    'Quantized',
    'Quantizer',
    'TinyAutoencoder',
    'VQAutoencoder',
]
