"""Smoke runs: configs shrunk to seconds, with built-in pictures and, for generators, tiny latents of them."""

import fcntl
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from eqzoo.checkpoints.config import plain_config
from eqzoo.data.latents.write import write_store
from eqzoo.engine.preflight import COMPONENT_KEYS
from eqzoo.files import replacing
from eqzoo.registry import build, check_config, find_component

STEPS = 4
BATCH = 4

_IMAGES = dict(type='Shapes', num_images=16, size=64)


def shrink(config: Config) -> Config:
    """Return a copy of `config` that trains for a few steps on any machine.

    Components shrink themselves with their classmethod `smoke`; the length of the run, its batches and
    intervals are shrunk here. The subject of a config (objective, transforms, losses, optimizers, hooks)
    stays. For a generator, latents are written to the work directory.
    """
    small = config.copy()
    for key in COMPONENT_KEYS:
        if small.get(key):
            list(check_config(small[key], key))  # a misspelt argument is reported before `smoke` replaces it
            small[key] = _shrink_value(small[key].to_dict() if hasattr(small[key], 'to_dict') else small[key])
    small.train_cfg.update(max_iters=STEPS)
    if small.get('val_dataloader'):
        small.train_cfg.val_interval = STEPS
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'cache_dataloader'):
        if small.get(key):
            small[key].update(batch_size=BATCH, num_workers=0)
    if small.model.get('micro_batch_size'):
        small.model.micro_batch_size = BATCH // 2
    for hook in small.get('default_hooks', {}).values():
        if hook and 'interval' in hook:
            hook.interval = STEPS // 2
    small.compile = False
    small.work_dir = str(config.work_dir).replace('work_dirs', 'work_dirs/smoke', 1)
    if 'generator' in small.model:
        small.sampling.update(num_samples=2 * BATCH, batch_size=BATCH)
        _write_latents(small)
    return small


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

    `config`, a generator's and already shrunk, is changed in place: its network gets the size of the latents.
    """
    folder = Path(config.work_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / '.smoke').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes of one run take turns, and write the same files
        _write_latents_to(folder, config)


def _write_latents_to(folder: Path, config: Config) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        autoencoder = build(config.model.autoencoder).eval()
    weights = folder / 'autoencoder.pt'
    with replacing(weights) as temporary, temporary.open('wb') as file:  # torch would store the temporary name
        torch.save(autoencoder.state_dict(), file)
    config.model.autoencoder.weights = str(weights)
    dataset = config.train_dataloader.dataset
    network = config.model.generator.network
    _, side, _ = autoencoder.latents(torch.zeros(1, 3, _IMAGES['size'], _IMAGES['size']))[0].shape
    if autoencoder.has_codebook:
        network.update(num_codes=autoencoder.num_codes, grid=side)
    else:
        network.patch_size = min(network.get('patch_size', 2), side)
        network.update(latent_channels=autoencoder.latent_channels, latent_size=side)
    for place, name in ((config.model.generator, 'encoder'), (config, 'cache_encoder')):
        if place.get(name):
            place[name] = dict(type='EfficientNetLite0Tokens', stride=16, size=16 * side // network.patch_size)
            network.feature_dims = (112,)
    encoder = build(config.cache_encoder) if config.get('cache_encoder') else None
    images = build(dict(_IMAGES))
    options = dict(flip=dataset.get('flip', False), encoder=encoder, config=plain_config(config.model.autoencoder))
    root = folder / 'latents'
    try:
        write_store(autoencoder, images, root, batch_size=len(images), **options)
    except ValueError:  # the folder has the latents of an earlier smoke run with another config
        shutil.rmtree(root)
        write_store(autoencoder, images, root, batch_size=len(images), **options)
    pictures = dict(images=dict(_IMAGES)) if dataset.get('images') else {}
    config.train_dataloader.dataset = dict(
        type='LatentStore', root=str(root), flip=dataset.get('flip', False), **pictures
    )
    if config.get('cache_dataloader'):
        config.cache_dataloader.dataset = dict(_IMAGES)
    network.num_classes = len(images.classes)
