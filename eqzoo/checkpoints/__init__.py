"""Weights files of every format: read, inferred, converted, written."""

from eqzoo.checkpoints.autoencoder import load_autoencoder

__all__ = [
    'load_autoencoder',
]
