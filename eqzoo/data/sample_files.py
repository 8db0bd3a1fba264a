"""Samples on the disk, written batch by batch in any order: a folder of PNGs, or one npz file."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eqzoo.data.latent_index import write_json
from eqzoo.data.npz_images import write_npz_images
from eqzoo.npz import NpzArchive, write_npz

_PIECE = 256  # images read and written at once when an npz file is put together


class PngSamples:
    """A folder with a PNG a sample, named by its number: `000000.png`.

    Args:
        path: The folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def numbers(self) -> set[int]:
        """Return the numbers of the samples that are there."""
        return {int(file.stem) for file in self.path.glob('*.png') if file.stem.isdigit()}

    def write(self, numbers: Sequence[int], images: Tensor) -> None:
        """Add the samples `numbers`, `images` (B, 3, H, W), uint8; each appears when it is whole."""
        self.path.mkdir(parents=True, exist_ok=True)
        for number, pixels in zip(numbers, images.permute(0, 2, 3, 1).numpy(), strict=True):
            temporary = self.path / f'.{number:06d}.{os.getpid()}.tmp'
            Image.fromarray(pixels).save(temporary, 'png')
            temporary.replace(self._file(number))

    def read(self, numbers: Sequence[int]) -> Tensor:
        """Return the samples `numbers` as (B, 3, H, W), uint8."""
        images = [np.array(Image.open(self._file(number)).convert('RGB')) for number in numbers]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()

    def finish(self, labels: Sequence[int]) -> None:
        """Do nothing: the folder is what it should be."""

    def _file(self, number: int) -> Path:
        return self.path / f'{number:06d}.png'


class NpzSamples:
    """An npz file as ADM's evaluator reads it: `arr_0` images (N, H, W, 3), `arr_1` their classes (N,).

    Until `finish`, batches are files in a folder beside it, `<stem>.parts`. A finished file can
    be added to.

    Args:
        path: The file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._parts = self.path.with_name(f'{self.path.stem}.parts')
        self._places: dict[int, tuple[NpzArchive, int]] | None = None

    def numbers(self) -> set[int]:
        """Return the numbers of the samples that are there."""
        return set(self._find())

    def write(self, numbers: Sequence[int], images: Tensor) -> None:
        """Add the samples `numbers`, `images` (B, 3, H, W), uint8; they appear when they are whole."""
        file = self._parts / f'{numbers[0]:08d}-{len(numbers)}.npz'
        with write_npz(file) as npz:
            npz.add('numbers', np.asarray(numbers, np.int64))
            npz.add_images('images', [images], len(images))
        if self._places is not None:  # looking through all parts again would cost more with every batch
            self._places |= _places_in(file)

    def read(self, numbers: Sequence[int]) -> Tensor:
        """Return the samples `numbers` as (B, 3, H, W), uint8."""
        if self._places is None or not self._places.keys() >= set(numbers):  # another process may have written more
            self._places = self._find()
        places = self._places
        mapped: dict[int, np.ndarray] = {}
        images = []
        for number in numbers:
            archive, row = places[number]
            if id(archive) not in mapped:
                mapped[id(archive)] = archive.map('arr_0' if archive.path == self.path else 'images')
            images.append(mapped[id(archive)][row])
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()

    def finish(self, labels: Sequence[int]) -> None:
        """Put the file together, with the classes `labels` of all N samples, and remove the parts."""
        if self._parts.is_dir():
            write_npz_images(self.path, self._in_order(len(labels)), len(labels), labels=labels)
            shutil.rmtree(self._parts)
            self._places = None

    def _in_order(self, count: int) -> Iterator[Tensor]:
        for start in range(0, count, _PIECE):
            yield self.read(range(start, min(start + _PIECE, count)))

    def _find(self) -> dict[int, tuple[NpzArchive, int]]:
        places: dict[int, tuple[NpzArchive, int]] = {}
        if self.path.is_file():
            archive = NpzArchive(self.path)
            places |= {number: (archive, number) for number in range(len(archive.map('arr_0')))}
        for file in sorted(self._parts.glob('*.npz')):
            places |= _places_in(file)
        return places


def _places_in(part: Path) -> dict[int, tuple[NpzArchive, int]]:
    archive = NpzArchive(part)
    return {int(number): (archive, row) for row, number in enumerate(archive.read('numbers'))}


def open_sample_files(path: str | Path) -> PngSamples | NpzSamples:
    """Return where samples go: an npz file if `path` ends so, else a folder of PNGs."""
    return NpzSamples(path) if Path(path).suffix == '.npz' else PngSamples(path)


def card_of(path: str | Path) -> Path:
    """Return the file beside samples that says how they were drawn: a folder of images has images only."""
    path = Path(path)
    return path.with_name(f'{path.stem if path.suffix == ".npz" else path.name}.json')


def write_card(path: str | Path, card: Mapping[str, Any]) -> None:
    """Write `card_of(path)`, in JSON's types."""
    card_of(path).parent.mkdir(parents=True, exist_ok=True)
    write_json(card_of(path), card)


def check_card(path: str | Path, plan: Mapping[str, Any]) -> None:
    """Refuse to add samples to others.

    Args:
        path: Where samples go.
        plan: All that decides what sample n is, in JSON's types.

    Raises:
        ValueError: If samples are there that are not of this plan.
    """
    file = card_of(path)
    if not file.is_file():
        if open_sample_files(path).numbers():
            raise ValueError(
                f'{path}: there are samples, but no {file.name} that says of what; choose another --out, '
                'or delete them.'
            )
        return
    try:
        there = json.loads(file.read_text())['plan']
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{file}: damaged ({type(error).__name__}: {error}); delete it and {path}.') from None
    wanted = json.loads(json.dumps(plan))
    names = [name for name in {**there, **wanted} if there.get(name) != wanted.get(name)]
    if names:
        said = '; '.join(f'{name} {there.get(name)!r} there, {wanted.get(name)!r} asked' for name in names)
        raise ValueError(f'{path}: has other samples: {said}; choose another --out, or delete {path} and {file}.')
