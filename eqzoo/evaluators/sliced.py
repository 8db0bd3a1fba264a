"""The sliced Wasserstein distance between sets of images, which needs no weights: `swd`."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from eqzoo.evaluators.base import Evaluator
from eqzoo.evaluators.reconstruction import to_uint8
from eqzoo.evaluators.reference import SMOKE_REFERENCE
from eqzoo.evaluators.view import AutoencoderView, SampleView
from eqzoo.registry import EVALUATORS
from eqzoo.statistics.reference import Reference, read_reference
from eqzoo.statistics.sliced import patches, patches_per_image, sliced_wasserstein

_BATCH = 64


class _Sliced(Evaluator):
    """Keeps patches of sets of images by name; how many of an image depends on how many images there are."""

    def __init__(self) -> None:
        super().__init__()
        self._per_image: int | None = None

    def check(self, num_images: int) -> None:
        """Share what is kept of a set between `num_images`."""
        self._per_image = patches_per_image(num_images)

    def _keep(self, name: str, images: Tensor, numbers: Tensor) -> None:
        if self._per_image is None:
            raise ValueError(f'{type(self).__name__}: check(num_images) comes before the first batch.')
        for level, cut in enumerate(patches(to_uint8(images), numbers, self._per_image)):
            self.keep(f'{name} {level}', cut, numbers)

    def _levels(self, name: str) -> list[Tensor]:
        return [self.kept[key] for key in sorted(self.kept, key=_level) if key.startswith(f'{name} ')]


@EVALUATORS.register_module()
class ReconstructionSlicedWasserstein(_Sliced):
    """`swd`: how far the patches of all reconstructions are from those of all images.

    The same places are cut from an image and its reconstruction, so that only what reconstruction
    changes counts: perfect reconstructions have 0. Compare values of as many images only.
    """

    @torch.no_grad()
    def update(self, view: AutoencoderView) -> None:
        """Keep patches of a batch."""
        self._keep('target', view.images, view.numbers)
        self._keep('reconstruction', view.reconstruction, view.numbers)

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the distance."""
        return {'swd': sliced_wasserstein(self._levels('reconstruction'), self._levels('target')).mean}

    def card(self) -> dict[str, Any]:
        """Say what is compared."""
        return {
            'values': '8-bit',
            'patches': f'7 x 7, {self._per_image} of each level of each image, in the same places of both sets',
            'latent': 'posterior mean',
        }


@EVALUATORS.register_module()
class GenerationSlicedWasserstein(_Sliced):
    """`swd`: how far the patches of samples are from those of a reference's images.

    Two halves of one set of 10,000 images of 32 pixels are about 10 apart, not 0: compare values
    of as many images only.

    Args:
        reference: A file with images, as ADM's evaluator or `tools/reference.py` writes it; in a config
            also a data set, which `tools/test.py` measures once.

    Raises:
        ValueError: If it is no such file.
        FileNotFoundError: If there is none.
    """

    def __init__(self, reference: str | Reference) -> None:
        super().__init__()
        self.reference = read_reference(reference) if not isinstance(reference, Reference) else reference

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the same against a few built-in pictures."""
        return {**arguments, 'reference': SMOKE_REFERENCE}

    def check(self, num_images: int) -> None:
        """Refuse a reference without images.

        Raises:
            ValueError: If it has none.
        """
        super().check(num_images)
        self.reference.images()

    @torch.no_grad()
    def update(self, view: SampleView) -> None:
        """Keep patches of a batch."""
        self._keep('sample', view.images, view.numbers)

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the distance."""
        images = self.reference.images()
        per_image = patches_per_image(len(images))
        cuts = []
        for start in range(0, len(images), _BATCH):
            batch = torch.from_numpy(images[start : start + _BATCH].copy()).permute(0, 3, 1, 2)
            cuts.append(patches(batch, torch.arange(start, start + len(batch)), per_image))
        levels = [torch.cat(level) for level in zip(*cuts, strict=True)]
        return {'swd': sliced_wasserstein(self._levels('sample'), levels).mean}

    def card(self) -> dict[str, Any]:
        """Say what is compared."""
        card = {'values': '8-bit', 'patches': f'7 x 7, {self._per_image} of each level of each sample'}
        return {**card, 'reference': self.reference.card()}


def _level(key: str) -> int:
    return int(key.rsplit(' ', 1)[1])
