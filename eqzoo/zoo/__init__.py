"""Released weights: their index, their place in the cache, and their download."""

from eqzoo.zoo.download import (
    Patience,
    cache_folder,
    cached,
    fetch,
    fetch_command,
    located,
    record_of,
    weights_files,
    weights_requirements,
)
from eqzoo.zoo.index import ReleasedFile, ReleasedModel, find_model, is_remote, models, resolve

__all__ = [
    'Patience',
    'ReleasedFile',
    'ReleasedModel',
    'cache_folder',
    'cached',
    'fetch',
    'fetch_command',
    'find_model',
    'is_remote',
    'located',
    'models',
    'record_of',
    'resolve',
    'weights_files',
    'weights_requirements',
]
