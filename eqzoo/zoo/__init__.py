"""Released weights: their index, their place in the cache, their download; and uploads to the Hub."""

from eqzoo.zoo.download import (
    cache_folder,
    cached,
    fetch,
    fetch_command,
    located,
    record_of,
    shard_names,
    weights_files,
    weights_requirements,
)
from eqzoo.zoo.index import (
    DIFFUSERS_COMPANION,
    DIFFUSERS_CONFIG,
    DIFFUSERS_WEIGHTS,
    HUB,
    ReleasedFile,
    ReleasedModel,
    bare_url,
    find_model,
    is_remote,
    models,
    resolve,
    without_passwords,
)
from eqzoo.zoo.transfer import Patience
from eqzoo.zoo.upload import check_upload, upload

__all__ = [
    'DIFFUSERS_COMPANION',
    'DIFFUSERS_CONFIG',
    'DIFFUSERS_WEIGHTS',
    'HUB',
    'Patience',
    'ReleasedFile',
    'ReleasedModel',
    'bare_url',
    'cache_folder',
    'cached',
    'check_upload',
    'fetch',
    'fetch_command',
    'find_model',
    'is_remote',
    'located',
    'models',
    'record_of',
    'resolve',
    'shard_names',
    'upload',
    'weights_files',
    'weights_requirements',
    'without_passwords',
]
