"""Fréchet distance of decoded interpolations between neighbouring latents, a predictor of a generator's FID (iFID)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from eqzoo.data.loaders import collate_any
from eqzoo.data.workers import worker_options
from eqzoo.distributed import all_gather_object, all_reduce, rank_and_world_size
from eqzoo.evaluators.base import AutoencoderView, finite_values
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
from eqzoo.images import to_float, to_uint8
from eqzoo.randomness import seeded
from eqzoo.registry import EVALUATORS
from eqzoo.registry.ranges import NonNegativeInt, PositiveInt, Range
from eqzoo.vision import FeatureExtractor

_SEED, _REFERENCE_SEED = 2, 3


@EVALUATORS.register_module()
class InterpolationFrechet(LatentSample):
    """The Fréchet distance of decoded interpolations of latents from the images: `ifid` on FID's Inception.

    From arXiv 2603.05630, which found that it ranks autoencoders like their generators' FID (correlation
    0.85). For each latent one of its ten nearest neighbours by cosine is drawn, with probabilities
    softmax(-MSE), and the point half-way between both on the sphere is decoded. In a latent space with
    holes such points do not decode to images. The value falls as the number of images grows, because
    neighbours are nearer.

    Distances are between raw latents, as in the released code: softmax(-MSE) depends on the unit. Differs from it:
    latents are posterior means, where the release draws them, and decoded images are rounded to 8 bits.

    Neighbours are from the `reference`: in the paper it is the training set, and the measured images, which it
    must not contain, are those of validation. Without one they are from the measured set: that needs no second
    pass over images, and differs from the paper. The card has which.

    On another extractor the name contains the extractor's: `ifd_effnet_lite0`.

    Args:
        extractor: The features.
        neighbors: The number of nearest neighbours to draw from.
        position: Of the interpolation, in [0, 1]: 0 is the latent itself.
        max_images: How many are interpolated at most, drawn once from all; they are kept: 800 MB
            at 50,000 of 4,096 values. The Fréchet distance is to all images.
        min_images: Fewer are refused. Default: one more than there are features.
        reference: A data set of images as the measured ones, among whose latents neighbours are found. It is
            encoded in each evaluation.
        max_reference: How many of its images at most, drawn once from all; their latents are kept too.
        num_workers: Processes that read it, for each process of the evaluation.

    Raises:
        ValueError: If an argument is out of range, or the reference is no data set or has too few images.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        *,
        neighbors: PositiveInt = 10,
        position: Annotated[float, Range(at_least=0, at_most=1)] = 0.5,
        max_images: PositiveInt = 50_000,
        min_images: PositiveInt | None = None,
        reference: Dataset | str | None = None,
        max_reference: PositiveInt = 50_000,
        num_workers: NonNegativeInt = 0,
    ) -> None:
        super().__init__(max_images, choose_min_images(min_images, extractor.num_features))
        if reference is not None:
            _check_is_data(reference)
            _refuse_few(min(len(reference), max_reference), neighbors)
        self.extractor, self.neighbors, self.position = extractor, neighbors, position
        self.reference, self.max_reference, self.num_workers = reference, max_reference, num_workers
        self._key = f'i{extractor.frechet_key}'
        self._autoencoder: Any = None
        self._place = torch.device('cpu')  # of the images
        self._batch_size = 1
        self._num_interpolated = self._num_encoded = 0  # known once evaluated

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the same for the smallest number of images."""
        return {**arguments, 'min_images': 2, 'neighbors': 1}

    def check(self, num_images: int) -> None:
        """Refuse too few images, and draw which are interpolated.

        Raises:
            ValueError: With the number needed.
        """
        needed = self.neighbors + 1 if self.reference is None else 1
        refuse_too_few(self._key, num_images, max(self.min_images, needed))
        super().check(num_images)

    def latents_of(self, view: AutoencoderView) -> Tensor:
        """Return the raw latents (B, C, h, w) of a batch."""
        return view.raw_latents

    @torch.no_grad()
    def update(self, view: AutoencoderView) -> None:
        """Keep a batch's latents, and add its images' features."""
        super().update(view)
        self._autoencoder, self._place = view.autoencoder, view.images.device
        self._batch_size = max(self._batch_size, len(view.images))
        self.add_features('images', self.extractor(view.images_uint8).pooled)

    @torch.no_grad()
    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Interpolate and decode, divided among the processes, and return the distance."""
        latents = self.latents()
        self._num_interpolated = len(latents)
        others = latents if self.reference is None else self._encode_reference(latents)
        partners = draw_neighbors(
            latents.flatten(1),
            self.neighbors,
            generator=seeded(_SEED),
            among=None if self.reference is None else others.flatten(1),
        )
        moments = FeatureMoments(self.extractor.num_features)
        # a process that saw no image has no autoencoder
        for part in _own_batches(len(latents), self._batch_size, can_decode=self._autoencoder is not None):
            between = slerp(latents[part], others[partners[part]], self.position)
            decoded = self._autoencoder.decode(between)
            moments.add(self.extractor(to_uint8(finite_values('interpolation', decoded, part))).pooled)
        self._autoencoder = None
        totals = MomentSums(*(total.cpu() for total in moments.sums))
        for total in totals:
            all_reduce(total)
        return {self._key: frechet_distance(FeatureMoments.from_sums(totals), moments_of(sums, 'images'))}

    def card(self) -> dict[str, Any]:
        """Return the features and the interpolation."""
        place = 'within the set' if self.reference is None else 'within another set'
        card = {
            **super().card(),
            'latent': 'posterior mean, raw',
            'extractor': self.extractor.card(),
            'neighbors': f'one of {self.neighbors} by cosine, {place}',
            'position': self.position,
            'interpolated': self._num_interpolated,
            'reference': 'all images',
        }
        if self.reference is not None:
            card['neighbors_from'] = {**self.reference.identity(), 'encoded': self._num_encoded}
        return card

    def _encode_reference(self, latents: Tensor) -> Tensor:
        """Return the latents (M, C, h, w) of the reference's images, encoded by all processes that can.

        Raises:
            ValueError: If they have another shape than `latents`, or too few images could be read.
        """
        order = torch.randperm(len(self.reference), generator=seeded(_REFERENCE_SEED, len(self.reference)))
        numbers = order[: self.max_reference].sort().values
        batches = _own_batches(len(numbers), self._batch_size, can_decode=self._autoencoder is not None)
        keys = [[(number, number) for number in numbers[part].tolist()] for part in batches]
        for batch in _load(self.reference, keys, self.num_workers):
            if batch['images'] is None:  # none is readable
                continue
            images = to_float(batch['images'].to(self._place))
            view = AutoencoderView(self._autoencoder, images, batch['indices'])
            self.keep('reference', view.raw_latents.float(), batch['indices'])
        # a process without an autoencoder has none, but takes part
        found = self.gather().get('reference', latents[:0].cpu())
        if found.shape[1:] != latents.shape[1:]:
            raise ValueError(
                f'InterpolationFrechet.reference: latents of {tuple(found.shape[1:])}, those of the measured images '
                f'are {tuple(latents.shape[1:])}; use images of one size for both.'
            )
        _refuse_few(len(found), self.neighbors)
        self._num_encoded = len(found)
        return found.to(latents.device)


def draw_neighbors(points: Tensor, count: int, *, generator: torch.Generator, among: Tensor | None = None) -> Tensor:
    """Return for each of `points` (N, D) the position of one of its `count` nearest neighbours by cosine, (N,).

    It is drawn with probabilities softmax(-MSE), where MSE is the mean over D of the squared difference.

    Args:
        points: Raw latents, one in each row.
        count: The number to draw from.
        generator: Of the draws.
        among: The points (M, D) that neighbours are drawn from. Default: the other ones of `points`.
    """
    others = points if among is None else among
    directions = None if among is None else F.normalize(among, dim=1)
    _, places = nearest_neighbors(F.normalize(points, dim=1), count, among=directions)
    errors = torch.stack([(points - others[column]).square().mean(dim=1) for column in places.T], dim=1)
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


def _load(dataset: Dataset, keys: Sequence[Sequence[tuple[int, int]]], num_workers: int) -> DataLoader:
    """Return a loader of batches of a data set by their keys."""
    # its own generator: otherwise the loader draws from the global one
    generator = torch.Generator().manual_seed(0)
    options = worker_options(num_workers)
    return DataLoader(dataset, batch_sampler=keys, collate_fn=collate_any, generator=generator, **options)


def _check_is_data(reference: Any) -> None:
    if not isinstance(reference, Dataset) or not hasattr(reference, 'identity'):
        raise ValueError(
            f"InterpolationFrechet.reference must be a data set of images, such as dict(type='ImageFolder', …), got "
            f'{reference!r}; for neighbours from the measured images leave it out.'
        )


def _refuse_few(available: int, needed: int) -> None:
    if available < needed:
        raise ValueError(
            f'InterpolationFrechet.reference: {available} images, but one of {needed} neighbours is drawn; use more '
            'images, a larger max_reference, or fewer neighbors.'
        )
