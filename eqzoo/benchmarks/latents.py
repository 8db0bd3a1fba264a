"""Benchmarks of the latent store: writing against encoding alone, reading against one `.npy` file for each image."""

import tempfile
from collections import deque
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from eqzoo.autoencoders.base import Deterministic
from eqzoo.benchmarks.measure import alternate
from eqzoo.data import RunSampler, Shapes, build_train_loader
from eqzoo.data.latents import LatentStore
from eqzoo.data.latents.write import write_store
from eqzoo.images import to_float
from eqzoo.normalization import LatentNormalization


def compare_reading(
    folder: Path, *, num_images: int, batch_size: int, num_workers: int, dtype: str, posterior: bool, rounds: int
) -> dict[str, float]:
    """Return latents/s, shuffled, of the store and of three layouts with one `.npy` file for each image.

    'moments.npy' has mean and std in one file and labels in memory (REPA), 'latents.npy' a drawn latent and
    labels in memory, 'latents.npy + labels.npy' one file for each (fast-DiT, EQ-VAE).
    Latents are 4 x 32 x 32; passes alternate, and the fastest of each counts.

    Args:
        folder: The folder to write to; existing files are used.
        num_images: Number of latents.
        batch_size: Of the loaders.
        num_workers: Processes that read for the loader; 0 reads in this one.
        dtype: Of the store's moments; files have float32.
        posterior: Whether the store has mean and std, like 'moments.npy', or the mean alone, like 'latents.npy'.
        rounds: Timed passes of each layout.
    """
    store, files = folder / f'store-{dtype}', folder / 'files'
    data = Shapes(num_images, 16)
    write_store(_FreeAutoencoder(posterior).eval(), data, store, batch_size=256, dtype=dtype)
    if not files.exists():
        _write_files(LatentStore(str(store)), files)
    readers = {
        'store': build_train_loader(LatentStore(str(store)), batch_size=batch_size, num_workers=num_workers, seed=0),
        **{
            name: DataLoader(
                _Files(files, name, data.labels()),
                batch_size,
                sampler=RunSampler(num_images),
                num_workers=num_workers,
                collate_fn=default_collate,
                persistent_workers=num_workers > 0,
            )
            for name in ('moments.npy', 'latents.npy', 'latents.npy + labels.npy')
        },
    }
    running = {name: iter(loader) for name, loader in readers.items()}
    count = max(1, num_images // batch_size)
    passes = {name: lambda batches=each: deque(islice(batches, count), maxlen=0) for name, each in running.items()}
    alternate(passes, 1)  # afterwards files are in the page cache, and workers are running
    return {name: count * batch_size / min(seconds) for name, seconds in alternate(passes, rounds).items()}


def compare_writing(
    autoencoder: Any, dataset: Dataset, *, batch_size: int, num_workers: int, rounds: int
) -> dict[str, float]:
    """Return images/s of encoding alone, of writing a store, and of writing one with a batch of 1.

    'encoder' encodes batches from memory; the others read, encode and write. They alternate, and
    the fastest of each counts.
    """
    count = len(dataset)
    images = torch.stack([dataset[index]['image'] for index in range(count)])
    _encode(autoencoder, images[:batch_size])  # the first call initialises the network
    ways = {
        'encoder': lambda: [_encode(autoencoder, batch) for batch in images.split(batch_size)],
        'store': lambda: _write(autoencoder, dataset, batch_size, num_workers),
        'store, batch 1': lambda: _write(autoencoder, dataset, 1, num_workers),
    }
    return {name: count / min(seconds) for name, seconds in alternate(ways, rounds).items()}


def _write(autoencoder: Any, dataset: Dataset, batch_size: int, num_workers: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_store(autoencoder, dataset, folder, batch_size=batch_size, num_workers=num_workers)


@torch.no_grad()
def _encode(autoencoder: Any, images: Tensor) -> None:
    autoencoder.encode(to_float(images.to(autoencoder.last_layer.device))).mean.cpu()


def _write_files(store: LatentStore, folder: Path) -> None:
    for name in ('moments', 'latents', 'labels'):
        (folder / name).mkdir(parents=True)
    for index in range(len(store)):
        item = store[index]
        np.save(folder / 'moments' / f'{index}.npy', torch.cat([item['mean'], item.get('std', item['mean'])]).numpy())
        np.save(folder / 'latents' / f'{index}.npy', item['mean'].numpy())
        np.save(folder / 'labels' / f'{index}.npy', np.array([item['label']]))


class _Files(Dataset):
    """Data set of one `.npy` file for each image, as in other projects."""

    def __init__(self, folder: Path, layout: str, labels: list[int]) -> None:
        self.latents = folder / layout.split('.')[0]
        self.labels = folder / 'labels' if 'labels' in layout else labels

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Any]:
        index, _ = key
        latent = torch.from_numpy(np.load(self.latents / f'{index}.npy'))
        if isinstance(self.labels, Path):
            return latent, torch.from_numpy(np.load(self.labels / f'{index}.npy'))
        return latent, self.labels[index]


class _FreeAutoencoder(nn.Module):
    """Autoencoder with latents 4 x 32 x 32 that takes no time."""

    has_codebook = False
    latent_channels = 4

    def __init__(self, posterior: bool) -> None:
        super().__init__()
        self.has_posterior = posterior
        self.last_layer = nn.Parameter(torch.zeros(4, 32, 32))
        self.normalization = LatentNormalization(4, scale=0.18215)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return 32, 32

    def encode(self, images: Tensor) -> Any:
        posterior = Deterministic(self.last_layer + images.mean((1, 2, 3))[:, None, None, None])
        posterior.std = torch.full_like(posterior.mean, 0.1) if self.has_posterior else None
        return posterior
