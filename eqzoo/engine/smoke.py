"""Smoke runs: configs shrunk to seconds, with built-in pictures and, for generators, tiny latents of them."""

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from eqzoo.autoencoders import Autoencoder
from eqzoo.checkpoints.autoencoder import autoencoder_digest
from eqzoo.checkpoints.config import plain_config
from eqzoo.config import trains_autoencoder
from eqzoo.data.latents.write import write_store
from eqzoo.engine.preflight import COMPONENT_KEYS
from eqzoo.files import replacing, writing_to
from eqzoo.registry import build, check_config, find_component

STEPS = 4
BATCH = 4
TEST_IMAGES = 10  # what a smoke test measures: Inception takes a third of a second for an image

MARK = '.smoke'
"""The file that marks a folder as one whose checkpoints a smoke run wrote."""

_ROOT = ('work_dirs', 'smoke')
_OF_LATENTS = ('latent_channels', 'latent_size', 'patch_size', 'num_classes')  # arguments of a generator's network
_IMAGES = dict(type='Shapes', num_images=16, size=64)


def shrink(config: Config) -> Config:
    """Return a copy of `config` that trains for a few steps on any machine.

    Components shrink themselves with their classmethod `smoke`; the length of the run, its batches and
    intervals are shrunk here. The subject of a config (objective, transforms, losses, optimizers, hooks)
    stays. The work directory becomes its `smoke_path`. For a generator, latents are written there.
    """
    small = config.copy()
    for key in COMPONENT_KEYS:
        if small.get(key):
            list(check_config(small[key], key))  # a misspelt argument is reported before `smoke` replaces it
            small[key] = _shrink_value(small[key].to_dict() if hasattr(small[key], 'to_dict') else small[key])
    if small.get('train_cfg'):  # what only encodes images or samples need not train
        small.train_cfg.update(max_iters=STEPS)
    if small.get('param_scheduler'):
        small.param_scheduler = _begun(small.param_scheduler)
    if small.get('val_dataloader') and small.get('train_cfg'):
        small.train_cfg.val_interval = STEPS
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'cache_dataloader'):
        if small.get(key):
            small[key].update(batch_size=BATCH, num_workers=0)
    for key in ('val_dataloader', 'test_dataloader'):
        dataset = (small.get(key) or {}).get('dataset', {})
        for count in ('num_images', 'limit'):
            if dataset.get(count):
                dataset[count] = min(dataset[count], TEST_IMAGES)
    if small.model.get('micro_batch_size'):
        small.model.micro_batch_size = BATCH // 2
    for hook in small.get('default_hooks', {}).values():
        if hook and 'interval' in hook:
            hook.interval = STEPS // 2
    small.compile = False
    small.work_dir = str(smoke_path(config.work_dir))
    if 'generator' in small.model:
        if small.get('sampling'):
            small.sampling.update(num_samples=2 * BATCH, batch_size=BATCH)
        if trains_autoencoder(small.model):
            _fit_to_images(small)
        else:
            _write_latents(small)
    return small


def _begun(schedules: Any) -> Any:
    """Return the schedules of `param_scheduler` without those that end with the run and would begin after its end."""
    if isinstance(schedules, Mapping) and 'type' not in schedules:
        return {name: _begun(each) for name, each in schedules.items()}
    if isinstance(schedules, Mapping):
        schedules = [schedules]
    return [each for each in schedules if 'end' in each or each.get('begin', 0) < STEPS]


def smoke_path(path: str | Path) -> Path:
    """Return the place where a smoke run writes what a real run writes to `path`: in a folder `work_dirs/smoke`.

    Example:
        >>> [str(smoke_path(path)) for path in ('work_dirs/eqvae/sd', '/data/../latents', 'work_dirs/smoke/a')]
        ['work_dirs/smoke/eqvae/sd', 'work_dirs/smoke/latents', 'work_dirs/smoke/a']
    """
    parts = Path(os.path.normpath(Path(path).expanduser())).parts
    if _ROOT[0] not in parts:
        return Path(*_ROOT, *(part for part in parts if part not in ('..', Path(path).anchor)))
    after = parts.index(_ROOT[0]) + 1
    below = parts[after + 1 :] if parts[after : after + 1] == _ROOT[1:] else parts[after:]
    return Path(*parts[:after], *_ROOT[1:], *below)


def _shrink_value(value: Any) -> Any:
    if isinstance(value, Mapping) and 'type' in value:
        cls = value['type'] if callable(value['type']) else find_component(value['type'])
        arguments = {key: _shrink_value(item) for key, item in value.items() if key != 'type'}
        shrink_arguments = getattr(cls, 'smoke', dict)
        return {'type': value['type'], **shrink_arguments(arguments)}
    if isinstance(value, Mapping):
        return {key: _shrink_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_shrink_value(item) for item in value)
    return value


def _write_latents(config: Config) -> None:
    """Write a tiny autoencoder and latents of built-in pictures to the work directory, and point `config` to them.

    `config`, a generator's and already shrunk, is changed in place: its network gets the size of the latents. Each
    autoencoder has a folder of its own, so that nothing of another config is replaced.
    """
    autoencoder = _fit_network(config, _IMAGES['size'])
    dataset = (config.get('train_dataloader') or {}).get('dataset', {})
    network = config.model.generator.network
    encoder = build(config.cache_encoder) if config.get('cache_encoder') else None
    images = build(dict(_IMAGES))
    flip = dataset.get('flip', False)
    content = [autoencoder_digest(autoencoder), images.identity(), flip, encoder and encoder.card()]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    folder = Path(config.work_dir) / f'latents_{digest[:8]}'
    weights, root = folder / 'autoencoder.pt', folder / 'store'
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / '.lock').open('a')
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes of one run take turns, and write the same files
        with replacing(weights) as temporary, temporary.open('wb') as file:  # torch would store the temporary name
            torch.save(autoencoder.state_dict(), file)
        config.model.autoencoder.weights = str(weights)
        options = dict(flip=flip, encoder=encoder, config=plain_config(config.model.autoencoder))
        write_store(autoencoder, images, root, batch_size=len(images), **options)
    pictures = dict(images=dict(_IMAGES)) if dataset.get('images') else {}
    if dataset:
        config.train_dataloader.dataset = dict(type='LatentStore', root=str(root), flip=flip, **pictures)
    if config.get('cache_dataloader'):
        config.cache_dataloader.dataset = dict(_IMAGES)
    network.num_classes = len(images.classes)
    _fit_guidance(config)


def _fit_to_images(config: Config) -> None:
    """Give the network of joint training, already shrunk, the size of the latents of its images, and their classes."""
    images = build(config.train_dataloader.dataset)
    _fit_network(config, images.size)
    config.model.generator.network.num_classes = len(images.classes)
    _fit_guidance(config)


def _fit_guidance(config: Config) -> None:
    """Give the worse networks of `AutoGuidance` the latents and classes of the generator's."""
    network = config.model.generator.network
    hooks = (config.get('custom_hooks') or {}).values()
    for place in filter(None, (config.get('sampling'), *hooks)):
        guidance = (place.get('sampler') or {}).get('guidance')  # MaskGIT's is a number
        if isinstance(guidance, Mapping) and 'network' in guidance:
            guidance.network.update({key: network[key] for key in _OF_LATENTS if key in network})


def _fit_network(config: Config, size: int) -> Autoencoder:
    """Give a generator's network the size of the latents of images of `size` pixels; return the autoencoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        autoencoder = build(config.model.autoencoder).eval()
    network = config.model.generator.network
    _, side, _ = autoencoder.latents(torch.zeros(1, 3, size, size))[0].shape
    if autoencoder.has_codebook:
        network.update(num_codes=autoencoder.num_codes, grid=side)
    else:
        network.patch_size = min(network.get('patch_size', 2), side)
        network.update(latent_channels=autoencoder.latent_channels, latent_size=side)
    for place, name in ((config.model.generator, 'encoder'), (config, 'cache_encoder')):
        if place.get(name):
            place[name] = dict(type='EfficientNetLite0Tokens', stride=16, size=16 * side // network.patch_size)
            network.feature_dims = (112,)
    return autoencoder
