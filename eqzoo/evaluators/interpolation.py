"""Fréchet distance of decoded interpolations between neighbouring latents, which predicts a generator's FID (iFID)."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eqzoo.distributed import all_gather_object, all_reduce, rank_and_world_size
from eqzoo.evaluators.base import AutoencoderView
from eqzoo.evaluators.gaussian import (
    FeatureMoments,
    MomentSums,
    choose_min_images,
    frechet_distance,
    moments_of,
    refuse_too_few,
)
from eqzoo.evaluators.latents import LatentSample
from eqzoo.evaluators.neighbours import nearest_neighbors
from eqzoo.images import to_uint8
from eqzoo.randomness import seeded
from eqzoo.registry import EVALUATORS
from eqzoo.vision import FeatureExtractor

_SEED = 2


@EVALUATORS.register_module()
class InterpolationFrechet(LatentSample):
    """The Fréchet distance of decoded interpolations of latents from the images: `ifid` on FID's Inception.

    From arXiv 2603.05630, which found that it ranks autoencoders like their generators' FID (correlation
    0.85). For each latent one of its ten nearest neighbours by cosine is drawn, with probabilities
    softmax(-MSE), and the point half-way between both on the sphere is decoded. In a latent space with
    holes such points do not decode to images. Differs from it: the neighbours are from the measured set, not
    from the training set. The value falls as the number of images grows, because neighbours are nearer.

    On another extractor the name contains the extractor's: `ifd_effnet_lite0`.

    Args:
        extractor: The features.
        neighbors: The number of nearest neighbours to draw from.
        position: Of the interpolation, in [0, 1]: 0 is the latent itself.
        max_images: How many are interpolated at most, drawn once from all; they are kept: 800 MB
            at 50,000 of 4,096 values. All images count as the reference.
        min_images: Fewer are refused. Default: one more than there are features.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        *,
        neighbors: int = 10,
        position: float = 0.5,
        max_images: int = 50_000,
        min_images: int | None = None,
    ) -> None:
        super().__init__(max_images, choose_min_images(min_images, extractor.num_features))
        if neighbors < 1:
            raise ValueError(f'InterpolationFrechet.neighbors must be at least 1, got {neighbors}.')
        if not 0 <= position <= 1:
            raise ValueError(f'InterpolationFrechet.position must be in [0, 1], got {position}.')
        self.extractor, self.neighbors, self.position = extractor, neighbors, position
        self._key = f'i{extractor.frechet_key}'
        self._moments: FeatureMoments | None = None
        self._autoencoder: Any = None
        self._batch_size = 1
        self._num_interpolated = 0  # known once evaluated

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the same for the smallest number of images."""
        return {**arguments, 'min_images': 2, 'neighbors': 1}

    def check(self, num_images: int) -> None:
        """Refuse too few images, and draw which are interpolated.

        Raises:
            ValueError: With the number needed.
        """
        refuse_too_few(self._key, num_images, max(self.min_images, self.neighbors + 1))
        super().check(num_images)

    @torch.no_grad()
    def update(self, view: AutoencoderView) -> None:
        """Keep a batch's latents, and add its images' features."""
        super().update(view)
        self._autoencoder, self._batch_size = view.autoencoder, max(self._batch_size, len(view.images))
        self._moments = self._moments or FeatureMoments(self.extractor.num_features)
        self._moments.add(self.extractor(view.images_uint8).pooled)

    def flush(self) -> None:
        """Move the sums of the images' moments to `self.sums`."""
        moments, self._moments = self._moments, None
        if moments:
            self.add_totals('images', moments.sums._asdict())

    @torch.no_grad()
    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Interpolate and decode, divided among the processes, and return the distance."""
        latents = self.latents()
        self._num_interpolated = len(latents)
        partners = draw_neighbors(latents.flatten(1), self.neighbors, generator=seeded(_SEED))
        moments = FeatureMoments(self.extractor.num_features)
        # a process that saw no image has no autoencoder
        for part in _own_batches(len(latents), self._batch_size, can_decode=self._autoencoder is not None):
            between = slerp(latents[part], latents[partners[part]], self.position)
            decoded = self._autoencoder.decode(self._autoencoder.normalization.denormalize(between))
            moments.add(self.extractor(to_uint8(decoded)).pooled)
        self._autoencoder = None
        totals = MomentSums(*(total.cpu() for total in moments.sums))
        for total in totals:
            all_reduce(total)
        return {self._key: frechet_distance(FeatureMoments.from_sums(totals), moments_of(sums, 'images'))}

    def card(self) -> dict[str, Any]:
        """Return the features and the interpolation."""
        return {
            **super().card(),
            'extractor': self.extractor.card(),
            'neighbors': f'one of {self.neighbors} by cosine, within the set',
            'position': self.position,
            'interpolated': self._num_interpolated,
            'reference': 'all images',
        }


def draw_neighbors(points: Tensor, count: int, *, generator: torch.Generator) -> Tensor:
    """Return for each of `points` (N, D) the position of one of its `count` nearest neighbours by cosine, (N,).

    It is drawn with probabilities softmax(-MSE), where MSE is the mean over D of the squared difference.
    """
    _, places = nearest_neighbors(F.normalize(points, dim=1), count)
    errors = torch.stack([(points - points[column]).square().mean(dim=1) for column in places.T], dim=1)
    drawn = torch.multinomial(errors.neg().softmax(dim=1).cpu(), 1, generator=generator).to(places.device)
    return places.gather(1, drawn)[:, 0]


def slerp(a: Tensor, b: Tensor, position: float) -> Tensor:
    """Return points between `a` (B, ...) and `b` on the arc, at equal angles (Shoemake 1985).

    If both point in the same or in opposite directions the arc is undefined: a straight line is used.

    Example:
        >>> slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 0.5)
        tensor([[0.7071, 0.7071]])
    """
    flat = a.flatten(1).double(), b.flatten(1).double()
    angle = F.cosine_similarity(*flat, dim=1).clamp(-1, 1).acos()[:, None]
    sine = angle.sin()
    weights = [(part * angle).sin() / sine for part in (1 - position, position)]
    line = [torch.full_like(angle, part) for part in (1 - position, position)]
    first, second = (torch.where(sine > 1e-6, w, v) for w, v in zip(weights, line, strict=True))
    return (first * flat[0] + second * flat[1]).view_as(a).to(a.dtype)


def _own_batches(count: int, batch_size: int, *, can_decode: bool) -> Iterator[Tensor]:
    """Yield this process's batches of 0, …, `count` - 1, which are divided among the processes that can decode."""
    able = [rank for rank, each in enumerate(all_gather_object(can_decode)) if each]
    if can_decode:
        own = torch.arange(able.index(rank_and_world_size()[0]), count, len(able))
        yield from own.split(batch_size) if len(own) else ()
