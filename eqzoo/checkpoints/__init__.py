"""Weights files of every format: read, architecture inferred, converted, written."""

from eqzoo.checkpoints.autoencoder import (
    AutoencoderFile,
    autoencoder_digest,
    load_autoencoder_weights,
    read_autoencoder,
)
from eqzoo.checkpoints.config import infer_config, plain_config
from eqzoo.checkpoints.generator import GeneratorFile, load_generator, read_generator
from eqzoo.checkpoints.read import check_tensors, read_file

__all__ = [
    'AutoencoderFile',
    'GeneratorFile',
    'autoencoder_digest',
    'check_tensors',
    'infer_config',
    'load_autoencoder_weights',
    'load_generator',
    'plain_config',
    'read_autoencoder',
    'read_file',
    'read_generator',
]
