"""Fréchet distance in latent space: a generator's latents and those of reference images, without the decoder.

Heusel et al. 2017, Eq. 6, on latents in place of Inception features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from eqzoo.evaluators.base import AutoencoderView, Evaluator, SampleView
from eqzoo.evaluators.gaussian import (
    Gaussian,
    choose_min_images,
    frechet_distance,
    moments_of,
    refuse_too_few,
)
from eqzoo.evaluators.reference import SMOKE_REFERENCE
from eqzoo.registry import EVALUATORS, Requirement
from eqzoo.registry.ranges import Filled, PositiveInt

_FEATURES = {
    'full': 'all values of a latent, C x h x w',
    'cells': 'the C values of a cell, cells of all places together',
}
_KEYS = {'full': 'latent_fd', 'cells': 'latent_fd/cells'}

LATENT_FEATURES = tuple(_FEATURES)


@dataclass(frozen=True)
class LatentReference:
    """Moments of the latents of a reference set, as `eqzoo.engine.references.measure_latents` returns them.

    Args:
        shape: (C, h, w) of a latent.
        num_images: The number of images.
        gaussians: By features, 'full' or 'cells'.
        data: The data set's identity.
        autoencoder: The `latents_card` of the autoencoder: its hash, shift and scale.
    """

    shape: tuple[int, int, int]
    num_images: int
    gaussians: Mapping[str, Gaussian]
    data: Mapping[str, Any]
    autoencoder: Mapping[str, Any]


class _LatentSums(Evaluator):
    """Base class that sums the moments of latents, of whole ones and of their cells.

    Args:
        shape: (C, h, w) of a latent.
        features: Of 'full' and 'cells'.

    Raises:
        ValueError: If there are none, or other features; by `update`, if latents are missing or of another shape.
    """

    def __init__(self, shape: tuple[int, int, int], features: Sequence[str]) -> None:
        super().__init__()
        if isinstance(features, str) or not features or not {*features} <= {*_FEATURES}:
            raise ValueError(
                f"GenerationLatentFrechet.features must be a non-empty subset of ('full', 'cells'), got {features!r}."
            )
        self.shape, self.features = tuple(shape), tuple(features)

    @torch.no_grad()
    def update(self, view: AutoencoderView | SampleView) -> None:
        """Add a batch's latents."""
        latents = view.latents
        if latents is None:
            raise ValueError(
                'GenerationLatentFrechet: got images without latents; expected samples of a generator of latents, '
                'which tools/test.py measures before they are decoded.'
            )
        if tuple(latents.shape[1:]) != self.shape:
            theirs, ours = (' x '.join(map(str, shape)) for shape in (latents.shape[1:], self.shape))
            raise ValueError(
                f"GenerationLatentFrechet: got latents of {theirs}; expected {ours}, the generator's; give reference "
                'images of the size of its samples.'
            )
        rows = {'full': latents.flatten(1), 'cells': latents.movedim(1, -1).flatten(0, 2)}
        for name in self.features:
            self.add_features(name, rows[name])


class LatentReferenceMoments(_LatentSums):
    """Moments of a reference set's latents, available as `gaussians` and `num_images` after `evaluate`; no metric.

    Args:
        shape: (C, h, w) of the generator's latents.
        features: Of 'full' and 'cells'.
    """

    def __init__(self, shape: tuple[int, int, int], features: Sequence[str] = LATENT_FEATURES) -> None:
        super().__init__(shape, features)
        self.num_images = 0
        self.gaussians: dict[str, Gaussian] = {}

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Set the moments of all processes; return no metric."""
        self.num_images = int(sums['count'])
        self.gaussians = {name: moments_of(sums, name).gaussian() for name in self.features}
        return {}


@EVALUATORS.register_module()
class GenerationLatentFrechet(_LatentSums):
    """`latent_fd` and `latent_fd/cells`: Fréchet distance of generated latents from those of reference images.

    Latents are in generator units and are not decoded: neither decoder nor extractor has a part in the value. Those of
    the reference are posterior means. A generator learns latents drawn from the posteriors, whose variance adds to that
    of the means: where the posteriors are wide, a perfect generator is not at 0. Units belong to the autoencoder:
    compare generators on one autoencoder, or on several with latents normalised per channel.

    - 'full', `latent_fd`: on all C · h · w values of a latent; it needs more images than these (2,049 for 32 x 8 x 8).
    - 'cells', `latent_fd/cells`: on the C values of a cell, pooled over all places; it sees no structure in the plane,
      and needs C + 1 images.

    Args:
        reference: In a config the data set of the images, which `tools/test.py` encodes once; a file of features has
            no latents of this autoencoder.
        features: Of 'full' and 'cells'.
        min_images: Fewer samples, or fewer images in the reference, are refused; by default one more than features.

    Raises:
        ValueError: If the reference is no data set, has too few images, or is measured on other features.
    """

    needs_latents: ClassVar[bool] = True

    def __init__(
        self,
        reference: LatentReference | Dataset | str,
        features: Filled[Literal['full', 'cells']] = LATENT_FEATURES,
        *,
        min_images: PositiveInt | None = None,
    ) -> None:
        if not isinstance(reference, LatentReference):
            raise ValueError(_reference_message(reference))
        super().__init__(reference.shape, features)
        lacking = [name for name in self.features if name not in reference.gaussians]
        if lacking:
            raise ValueError(
                f'GenerationLatentFrechet.features: {lacking[0]!r} is not in the reference, which has '
                f'{", ".join(reference.gaussians)}; measure it with the same features.'
            )
        self.reference, self.min_images = reference, min_images
        for name in self.features:
            self._refuse_too_few(name, f'reference of {_KEYS[name]}', reference.num_images)

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> list[Requirement]:
        """Refuse a file for reference; a data set has requirements of its own."""
        reference = arguments.get('reference')
        if not isinstance(reference, LatentReference | Mapping):
            raise ValueError(_reference_message(reference))
        return []

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the same against a few built-in pictures, for the smallest number of samples."""
        return {**arguments, 'reference': SMOKE_REFERENCE, 'min_images': 2}

    def check(self, num_images: int) -> None:
        """Refuse too few samples.

        Raises:
            ValueError: With the number needed.
        """
        for name in self.features:
            self._refuse_too_few(name, _KEYS[name], num_images)

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the distances."""
        gaussians = self.reference.gaussians
        return {_KEYS[name]: frechet_distance(moments_of(sums, name), gaussians[name]) for name in self.features}

    def card(self) -> dict[str, Any]:
        """Return the features, the shape of latents, and the reference with its autoencoder."""
        return {
            'latents': 'in generator units, of the reference posterior means',
            'features': {_KEYS[name]: _FEATURES[name] for name in self.features},
            'shape': list(self.shape),
            'reference': {'num_images': self.reference.num_images, 'data': dict(self.reference.data)},
            'autoencoder': dict(self.reference.autoencoder),
        }

    def _refuse_too_few(self, name: str, key: str, num_images: int) -> None:
        num_features = self.reference.gaussians[name].mean.numel()
        refuse_too_few(key, num_images, choose_min_images(self.min_images, num_features))


def _reference_message(reference: object) -> str:
    got = repr(reference) if isinstance(reference, str) else f'a {type(reference).__name__}'
    return (
        f'GenerationLatentFrechet.reference: got {got}; expected a data set, dict(type=…), in the test_evaluators of a '
        "generator's config: its images are encoded by the generator's autoencoder, and no file of features has its "
        'latents.'
    )
