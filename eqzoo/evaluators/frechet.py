"""The Fréchet distance between images and their reconstructions: rFID and its like."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from eqzoo.evaluators.base import AutoencoderView, Evaluator
from eqzoo.evaluators.gaussian import FeatureMoments, frechet_distance, moments_of
from eqzoo.evaluators.reference import read_reference
from eqzoo.images import to_uint8
from eqzoo.registry import EVALUATORS
from eqzoo.vision import FeatureExtractor

_SIDES = ('target', 'reconstruction')


@EVALUATORS.register_module()
class ReconstructionFrechet(Evaluator):
    """The Fréchet distance of all reconstructions from all images, both 8-bit, in one pass.

    On FID's pinned Inception it is `rfid`, against the very crops that were reconstructed, as
    published (a reference file of other crops gives about three times as much); on any other
    extractor its name is the extractor's: `fd_effnet_lite0`. Memory does not grow with the
    number of images: features are summed in float64, not kept.

    Args:
        extractor: The features.
        reference: A file of `tools/reference.py`, measured on the very images that are
            reconstructed: their features are then not extracted again, which halves the time.
        min_images: Fewer are refused. Default: one more than there are features, from where on the
            covariance has full rank. The value falls as images become more, at any number:
            compare such of one number only.

    Raises:
        ValueError: If the reference is of other features; by `check`, if it is of another number of images.
        FileNotFoundError: If there is no such reference.
    """

    def __init__(
        self, extractor: FeatureExtractor, *, reference: str | None = None, min_images: int | None = None
    ) -> None:
        super().__init__()
        self.extractor = extractor
        self.reference = read_reference(reference, extractor) if reference is not None else None
        self.min_images = check_min_images(min_images, extractor)
        frechet_key = extractor.frechet_key
        self._key = f'r{frechet_key}' if frechet_key.startswith('fid') else frechet_key
        self._moments: dict[str, FeatureMoments] = {}

    def check(self, num_images: int) -> None:
        """Refuse too few images, and a reference of others.

        Raises:
            ValueError: If there are fewer than `min_images`, or the reference is of another number.
        """
        refuse_too_few(self._key, num_images, self.min_images)
        if self.reference is not None and self.reference.num_images != num_images:
            raise ValueError(
                f'{self._key}: {self.reference.path} is of {self.reference.num_images} images, the data set has '
                f'{num_images}; accepted is a reference of the same images: measure it with tools/reference.py, with '
                'the same size and crop, or leave it out.'
            )

    @torch.no_grad()
    def update(self, view: AutoencoderView) -> None:
        """Add a batch's features."""
        for side, images in zip(_SIDES, (view.images, view.reconstruction), strict=True):
            if side == 'target' and self.reference is not None:
                continue
            moments = self._moments.setdefault(side, FeatureMoments(self.extractor.num_features))
            moments.add(self.extractor(to_uint8(images)).pooled)

    def flush(self) -> None:
        """Hand the moments' sums over."""
        moments, self._moments = self._moments, {}
        for side, each in moments.items():
            self.add_totals(side, each.sums._asdict())

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the distance."""
        target = moments_of(sums, 'target') if self.reference is None else self.reference.pooled
        return {self._key: frechet_distance(moments_of(sums, 'reconstruction'), target)}

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the same, for as few images as there may be."""
        return {**arguments, 'reference': None, 'min_images': 2}

    def card(self) -> dict[str, Any]:
        """Name the features and what is compared."""
        return {
            'extractor': self.extractor.card(),
            'values': '8-bit, rounded to the nearest',
            'reference': 'the same images' if self.reference is None else self.reference.card(),
            'latent': 'posterior mean',
        }


def check_min_images(min_images: int | None, extractor: FeatureExtractor) -> int:
    """Return the least number of images: what was asked for, or one more than features.

    Raises:
        ValueError: If it is below 2.
    """
    if min_images is not None and min_images < 2:
        raise ValueError(f'min_images must be at least 2, for a covariance, got {min_images}.')
    return min_images or extractor.num_features + 1


def refuse_too_few(key: str, num_images: int, min_images: int) -> None:
    """Refuse fewer than `min_images`.

    Raises:
        ValueError: With the number needed.
    """
    if num_images < min_images:
        raise ValueError(
            f'{key}: {num_images} images, but it needs {min_images} or more for a covariance of full rank; use more '
            'images, or min_images=2 for a number that is comparable at this number of images only.'
        )
