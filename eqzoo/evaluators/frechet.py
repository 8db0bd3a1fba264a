"""Fréchet distance between images and their reconstructions: rFID."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from eqzoo.evaluators.base import AutoencoderView, Evaluator
from eqzoo.evaluators.gaussian import (
    choose_min_images,
    frechet_distance,
    moments_of,
    refuse_too_few,
)
from eqzoo.evaluators.reference import read_reference
from eqzoo.registry import EVALUATORS
from eqzoo.registry.ranges import PositiveInt
from eqzoo.vision import FeatureExtractor


@EVALUATORS.register_module()
class ReconstructionFrechet(Evaluator):
    """The Fréchet distance of all reconstructions from all images, both 8-bit, in one pass.

    With FID's pinned Inception its name is `rfid`, as in publications; other extractors have their name in it:
    `fd_effnet_lite0`. It compares with the crops that were reconstructed (a reference file of other crops gives about
    three times as much). Memory does not grow with the number of images: features are summed in float64, not kept.

    Args:
        extractor: The features.
        reference: A file of `tools/reference.py`, measured on the same images that are
            reconstructed: their features are then not extracted again, which halves the time.
        min_images: Fewer are refused. Default: one more than there are features, from where on the
            covariance has full rank. The value falls as the number of images grows: compare values of
            one number only.

    Raises:
        ValueError: If the reference is of other features; by `check`, if it is of another number of images; by
            `check_images`, if of another size or crop.
        FileNotFoundError: If there is no such reference.
    """

    def __init__(
        self, extractor: FeatureExtractor, *, reference: str | None = None, min_images: PositiveInt | None = None
    ) -> None:
        super().__init__()
        self.extractor = extractor
        self.reference = read_reference(reference, extractor) if reference is not None else None
        self.min_images = choose_min_images(min_images, extractor.num_features)
        frechet_key = extractor.frechet_key
        self._key = f'r{frechet_key}' if frechet_key.startswith('fid') else frechet_key

    def check(self, num_images: int) -> None:
        """Refuse too few images, and a reference of another number of images.

        Raises:
            ValueError: If there are fewer than `min_images`, or the reference is of another number.
        """
        refuse_too_few(self._key, num_images, self.min_images)
        if self.reference is not None and self.reference.num_listed != num_images:
            raise ValueError(
                f'{self._key}: {self.reference.path} is of {self.reference.num_listed} images, the data set has '
                f'{num_images}; expected a reference of the same images: measure it with tools/reference.py, with '
                'the same size and crop, or leave it out.'
            )

    def check_images(self, size: int | None, crop: str | None) -> None:
        """Refuse a reference of images of another size or crop; see `Reference.check_images`."""
        if self.reference is not None:
            self.reference.check_images(size, crop)

    @torch.no_grad()
    def update(self, view: AutoencoderView) -> None:
        """Add a batch's features."""
        sides = {'reconstruction': view.reconstruction_uint8}
        if self.reference is None:
            sides['target'] = view.images_uint8
        for side, images in sides.items():
            self.add_features(side, self.extractor(images).pooled)

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the distance.

        Raises:
            ValueError: If another number of images could be read than when the reference was measured.
        """
        target = moments_of(sums, 'target') if self.reference is None else self.reference.pooled
        found = moments_of(sums, 'reconstruction')
        if self.reference is not None and found.count != self.reference.num_images:
            raise ValueError(
                f'{self._key}: {found.count} images could be read, and {self.reference.num_images} when '
                f'{self.reference.path} was measured; measure it again, or leave it out.'
            )
        return {self._key: frechet_distance(found, target)}

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the same for the smallest number of images."""
        return {**arguments, 'reference': None, 'min_images': 2}

    def card(self) -> dict[str, Any]:
        """Return the features and the two sides of the comparison."""
        return {
            'extractor': self.extractor.card(),
            'values': '8-bit, rounded to the nearest',
            'reference': 'the same images' if self.reference is None else self.reference.card(),
            'latent': 'posterior mean',
        }
