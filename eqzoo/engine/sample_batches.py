"""Samples as an evaluation reads them: batches, drawn when they are asked for."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from eqzoo.data.sample_files import NpzSamples, PngSamples
from eqzoo.distributed import rank_and_world_size
from eqzoo.engine.sampling import ImageSampler, batches


class SampleBatches:
    """Batches of samples in place of a loader; nothing is written unless `files` is given.

    Over several processes each draws its own share.

    Args:
        draw: Draws images by number.
        num_samples: N, over all processes.
        batch_size: Of this process.
        identity: How they are drawn, for metric cards.
        files: Where samples go, and where those are read that are there already.
        num_examples: How many of this process's first images are kept, as `examples`.
    """

    def __init__(
        self,
        draw: ImageSampler,
        num_samples: int,
        *,
        batch_size: int,
        identity: Mapping[str, Any],
        files: PngSamples | NpzSamples | None = None,
        num_examples: int = 128,
    ) -> None:
        self.dataset = _Samples(num_samples, identity)
        self.draw, self.batch_size, self.files, self.num_examples = draw, batch_size, files, num_examples
        self.examples: list[Tensor] = []
        self.example_labels: list[int] = []

    def __len__(self) -> int:
        return -(-len(self._own()) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        there = self.files.numbers() if self.files is not None else set()
        for numbers in batches(self._own(), self.batch_size):
            images, labels = self._images(numbers, there), self.draw.labels_of(numbers)
            for image, label in zip(images, labels.tolist(), strict=True):
                if len(self.examples) < self.num_examples:
                    self.examples.append(image)
                    self.example_labels.append(label)
            yield dict(images=images, labels=labels, indices=torch.tensor(numbers), unreadable=[])

    def _own(self) -> range:
        rank, world_size = rank_and_world_size()
        return range(rank, len(self.dataset), world_size)

    def _images(self, numbers: list[int], there: set[int]) -> Tensor:
        if self.files is None:
            return self.draw(numbers)
        lacking = [number for number in numbers if number not in there]
        found = [number for number in numbers if number in there]
        pieces = [self.files.read(found)] if found else []
        if lacking:
            drawn = self.draw(lacking)
            self.files.write(lacking, drawn)
            pieces.append(drawn)
        order = torch.tensor([*found, *lacking]).argsort()
        return torch.cat(pieces)[order]


class _Samples:
    """What an evaluation asks of a data set."""

    def __init__(self, count: int, identity: Mapping[str, Any]) -> None:
        self._count, self._identity = count, identity

    def __len__(self) -> int:
        return self._count

    def identity(self) -> dict[str, Any]:
        return dict(self._identity)
