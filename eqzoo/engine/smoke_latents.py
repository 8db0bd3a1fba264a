"""What a shrunk generator learns from: an autoencoder's file and its latents, written in a second."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from eqzoo.autoencoders.arguments import plain_config
from eqzoo.data import Shapes
from eqzoo.data.latent_writer import write_store
from eqzoo.registry import build

_IMAGES = dict(type='Shapes', num_images=16, size=64)


def write_smoke_latents(config: Config) -> None:
    """Write a tiny autoencoder and latents of built-in pictures to the work directory, and point `config` at them.

    The network is fitted to the latents; `config` is changed in place.

    Args:
        config: A generator's, already shrunk.
    """
    folder = Path(config.work_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        autoencoder = build(config.model.autoencoder).eval()
    weights = folder / 'autoencoder.pth'
    torch.save(autoencoder.state_dict(), weights)
    config.model.autoencoder.weights = str(weights)
    dataset = config.train_dataloader.dataset
    encoder = build(config.cache_encoder) if config.get('cache_encoder') else None
    images = Shapes(**{key: value for key, value in _IMAGES.items() if key != 'type'})
    store = write_store(
        autoencoder,
        images,
        folder / 'latents',
        batch_size=len(images),
        flip=dataset.get('flip', False),
        encoder=encoder,
        config=plain_config(config.model.autoencoder),
    )
    config.train_dataloader.dataset = _pointing_at(folder / 'latents', dataset)
    if 'cache_dataloader' in config:
        config.cache_dataloader.dataset = dict(_IMAGES)
    shape = next(iter(store.index.plan.fields.values())).shape
    network = config.model.generator.network
    network.update(latent_channels=shape[0], latent_size=shape[-1], num_classes=len(images.classes))
    if 'patch_size' in network:
        network.patch_size = min(network.patch_size, shape[-1])


def _pointing_at(root: Path, dataset: Mapping[str, Any]) -> dict[str, Any]:
    images = dict(images=dict(_IMAGES)) if dataset.get('images') else {}
    return dict(type='LatentStore', root=str(root), flip=dataset.get('flip', False), **images)
