"""Released weights: what there is, where it is kept, and how to have it."""

from eqzoo.zoo.cache import cache_folder
from eqzoo.zoo.digest import digest
from eqzoo.zoo.downloads import cached, fetch, fetch_command, located, record_of
from eqzoo.zoo.index import ReleasedFile, ReleasedModel, configs_folder, find, models
from eqzoo.zoo.loading import autoencoder_config, load
from eqzoo.zoo.sources import resolve
from eqzoo.zoo.transfer import Patience

__all__ = [
    'Patience',
    'ReleasedFile',
    'ReleasedModel',
    'autoencoder_config',
    'cache_folder',
    'cached',
    'configs_folder',
    'digest',
    'fetch',
    'fetch_command',
    'find',
    'load',
    'located',
    'models',
    'record_of',
    'resolve',
]
