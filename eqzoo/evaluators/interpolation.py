"""The Fréchet distance of what lies between neighbouring latents, which predicts a generator's FID (iFID)."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eqzoo.distributed import all_gather_object, all_reduce, rank_and_world_size
from eqzoo.evaluators.base import AutoencoderView
from eqzoo.evaluators.frechet import check_min_images, refuse_too_few
from eqzoo.evaluators.gaussian import FeatureMoments, frechet_distance, moments_of
from eqzoo.evaluators.latents import LatentSample
from eqzoo.evaluators.neighbours import nearest
from eqzoo.images import to_uint8
from eqzoo.randomness import seeded
from eqzoo.registry import EVALUATORS
from eqzoo.vision import FeatureExtractor

_SEED = 2


@EVALUATORS.register_module()
class InterpolationFrechet(LatentSample):
    """The Fréchet distance of decoded interpolations of latents from the images: `ifid` on FID's Inception.

    After arXiv 2603.05630, which found it to rank autoencoders as their generators' FID does
    (correlation 0.85): each latent has one of its ten nearest by the cosine drawn, by a
    softmax of -MSE; half-way between both, on the sphere, is decoded. A latent space with holes
    decodes to no images there. Differs from it: the neighbours are of the set that is measured, not of
    the training set. The value falls as images become more, so that neighbours are nearer.

    On another extractor the name is the extractor's: `ifd_effnet_lite0`.

    Args:
        extractor: The features.
        neighbors: How many nearest to draw from.
        position: Of the interpolation, in [0, 1]: 0 is the latent itself.
        max_images: How many are interpolated, at most, drawn once from all; they are kept: 800 MB
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
        super().__init__(max_images, check_min_images(min_images, extractor))
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
        """Return the same, for as few images as there may be."""
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
        self._moments.add(self.extractor(to_uint8(view.images)).pooled)

    def flush(self) -> None:
        """Hand the images' moments over."""
        moments, self._moments = self._moments, None
        if moments:
            self.add_totals('images', moments.sums._asdict())

    @torch.no_grad()
    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Interpolate and decode, each process a share, and return the distance."""
        latents = self.latents()
        self._num_interpolated = len(latents)
        partners = draw_neighbors(latents.flatten(1), self.neighbors, generator=seeded(_SEED))
        moments = FeatureMoments(self.extractor.num_features)
        for part in _share(len(latents), self._batch_size, is_able=self._autoencoder is not None):
            between = slerp(latents[part], latents[partners[part]], self.position)
            decoded = self._autoencoder.decode(self._autoencoder.normalization.denormalize(between))
            moments.add(self.extractor(to_uint8(decoded)).pooled)
        self._autoencoder = None
        totals = {part: total.cpu() for part, total in moments.sums._asdict().items()}
        for total in totals.values():
            all_reduce(total)
        return {self._key: frechet_distance(FeatureMoments.from_sums(totals), moments_of(sums, 'images'))}

    def card(self) -> dict[str, Any]:
        """Name the features and what is interpolated."""
        return {
            **super().card(),
            'extractor': self.extractor.card(),
            'neighbors': f'one of {self.neighbors} by cosine, within the set',
            'position': self.position,
            'interpolated': self._num_interpolated,
            'reference': 'all images',
        }


def draw_neighbors(points: Tensor, count: int, *, generator: torch.Generator) -> Tensor:
    """Return for each of `points` (N, D) the place of one of its `count` nearest by the cosine: (N,).

    It is drawn with probabilities softmax(-MSE), the mean over D of the squared difference.
    """
    _, places = nearest(F.normalize(points, dim=1), count)
    errors = torch.stack([(points - points[column]).square().mean(dim=1) for column in places.T], dim=1)
    drawn = torch.multinomial(errors.neg().softmax(dim=1).cpu(), 1, generator=generator).to(places.device)
    return places.gather(1, drawn)[:, 0]


def slerp(a: Tensor, b: Tensor, position: float) -> Tensor:
    """Return points between `a` (B, ...) and `b` along the arc, in equal angles (Shoemake 1985).

    Where both point the same way, or opposite ways, the arc is none or any: a straight line.

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


def _share(count: int, batch_size: int, *, is_able: bool) -> Iterator[Tensor]:
    """Yield this process's batches of 0, …, `count` - 1, which those that are able have among them."""
    able = [rank for rank, each in enumerate(all_gather_object(is_able)) if each]
    if is_able:
        own = torch.arange(able.index(rank_and_world_size()[0]), count, len(able))
        yield from own.split(batch_size) if len(own) else ()
