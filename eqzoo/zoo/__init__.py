"""Released weights: what there is, where it is kept, and how to have it."""

from eqzoo.zoo.download import Patience, cache_folder, cached, fetch, fetch_command, located, record_of, resolve
from eqzoo.zoo.index import ReleasedFile, ReleasedModel, find, models

__all__ = [
    'Patience',
    'ReleasedFile',
    'ReleasedModel',
    'cache_folder',
    'cached',
    'fetch',
    'fetch_command',
    'find',
    'located',
    'models',
    'record_of',
    'resolve',
]
