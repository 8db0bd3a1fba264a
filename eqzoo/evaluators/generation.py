"""How close a generator's samples are to a reference set: FID, sFID, Inception Score, precision, recall, KID."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from eqzoo.evaluators.base import Evaluator, SampleView
from eqzoo.evaluators.frechet import check_min_images, refuse_too_few
from eqzoo.evaluators.gaussian import FeatureMoments, frechet_distance, moments_of
from eqzoo.evaluators.inception_score import InceptionScoreSums, inception_score
from eqzoo.evaluators.kernel import kernel_distance
from eqzoo.evaluators.neighbours import manifold_scores
from eqzoo.evaluators.reference import SMOKE_REFERENCE, Reference, image_features, label_scheme, read_reference
from eqzoo.images import to_uint8
from eqzoo.randomness import seeded
from eqzoo.registry import EVALUATORS, Requirement
from eqzoo.vision import FeatureExtractor

_METRICS = {
    'fd': 'Fréchet distance of pooled features: fid',
    'sfd': 'Fréchet distance of spatial features: sfid',
    'is': 'Inception Score',
    'pr': 'precision, recall, density and coverage',
    'kid': 'kernel distance',
}


@EVALUATORS.register_module()
class GenerationMetric(Evaluator):
    """All that compares samples with a reference by features, from one pass over the samples.

    On FID's pinned Inception the names are `fid`, `sfid`, `is`, `precision`, `recall`, `density`,
    `coverage` and `kid`, and ADM's definitions; on another extractor they name it:
    `fd_effnet_lite0`, `precision_effnet_lite0`, … Moments and the Inception Score are summed;
    features are kept for precision, recall and KID alone.

    Args:
        extractor: The features.
        reference: A file as ADM's evaluator or `tools/reference.py` writes it, of the same features;
            in a config also a data set, which `tools/test.py` measures once.
        metrics: Of 'fd', 'sfd', 'is', 'pr', 'kid'. Default: all that extractor and reference
            have: spatial features for 'sfd', FID's Inception for 'is', images for 'pr' and 'kid'.
        min_images: Fewer samples are refused; by default one more than features.
        splits: Of the Inception Score; an image's split follows from its number.
        kid_subset_size: Images of a subset of KID.

    Raises:
        ValueError: If the reference is of other features, or lacks what a metric needs.
        FileNotFoundError: If there is no reference.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        reference: str | Reference,
        metrics: Sequence[str] | None = None,
        *,
        min_images: int | None = None,
        splits: int = 10,
        kid_subset_size: int = 1000,
    ) -> None:
        super().__init__()
        self.extractor = extractor
        self.reference = read_reference(reference) if not isinstance(reference, Reference) else reference
        self.reference.check(extractor)
        self.metrics = _chosen(metrics, extractor, self.reference)
        self.min_images = check_min_images(min_images, extractor)
        self.splits, self.kid_subset_size = splits, kid_subset_size
        self._moments: dict[str, FeatureMoments] = {}
        self._classes: InceptionScoreSums | None = None
        self._reference_features: Tensor | None = None
        self._labels = 'not given'

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> list[Requirement]:
        """Return what keeps the reference from being read."""
        reference = arguments.get('reference')
        if isinstance(reference, Reference | Mapping):  # a data set's config has requirements of its own
            return []
        try:
            read_reference(reference or '')
        except (OSError, ValueError) as error:
            remedy = 'Make one: python tools/reference.py IMAGES FILE.npz, and set reference=FILE.npz'
            return [Requirement(f'GenerationMetric: {error}', str(reference), remedy)]
        return []

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the same against a few built-in pictures, for as few samples as there may be."""
        return {**arguments, 'reference': SMOKE_REFERENCE, 'min_images': 2, 'splits': 2, 'kid_subset_size': 4}

    def check(self, num_images: int) -> None:
        """Refuse too few samples, and get the features of the reference's images where they are needed.

        Raises:
            ValueError: With the number needed.
        """
        if 'fd' in self.metrics:
            refuse_too_few(self.extractor.frechet_key, num_images, self.min_images)
        if 'is' in self.metrics:
            self._classes = InceptionScoreSums(num_images, self.extractor.num_logits, splits=self.splits)
        if {'pr', 'kid'} & set(self.metrics) and self._reference_features is None:
            self._reference_features = self.reference.features()
            if self._reference_features is None:
                self._reference_features = image_features(self.extractor, self.reference.images())
        if 'kid' in self.metrics and min(num_images, len(self._reference_features)) < self.kid_subset_size:
            raise ValueError(
                f'kid: {num_images} samples and {len(self._reference_features)} images in the reference; subsets of '
                f'{self.kid_subset_size} need as many; use more, set kid_subset_size, or leave kid out of metrics.'
            )

    def process(self, data_batch: Mapping[str, Any], data_samples: Sequence[SampleView]) -> None:
        """Take a batch as `Evaluator` does, and its labels."""
        if 'labels' in data_batch:
            self.keep('labels', data_batch['labels'], data_samples[0].numbers)
        super().process(data_batch, data_samples)

    @torch.no_grad()
    def update(self, view: SampleView) -> None:
        """Add a batch of samples."""
        features = self.extractor(to_uint8(view.images))
        self._add('pooled', features.pooled)
        if 'sfd' in self.metrics:
            self._add('spatial', features.spatial)
        if 'is' in self.metrics:
            self._classes.add(features.logits, view.numbers)
        if {'pr', 'kid'} & set(self.metrics):
            self.keep('features', features.pooled, view.numbers)

    def flush(self) -> None:
        """Hand the sums over."""
        parts = {name: moments.sums for name, moments in self._moments.items()}
        parts |= {'classes': self._classes.sums} if self._classes is not None else {}
        self._moments, self._classes = {}, None
        for name, sums in parts.items():
            self.add_totals(name, sums._asdict())

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the chosen metrics."""
        self._labels = label_scheme(self.kept.get('labels'))
        key, suffix, found = self.extractor.frechet_key, self.extractor.suffix, {}
        if 'fd' in self.metrics:
            found[key] = frechet_distance(moments_of(sums, 'pooled'), self.reference.pooled)
        if 'sfd' in self.metrics:
            found[f's{key}'] = frechet_distance(moments_of(sums, 'spatial'), self.reference.spatial)
        if 'is' in self.metrics:
            classes = {part: sums[f'classes {part}'] for part in ('count', 'negative_entropy', 'probability')}
            found[f'is{suffix}'] = inception_score(classes).mean
        if 'pr' in self.metrics:
            scores = manifold_scores(self._reference_features, self.kept['features'])
            found |= {f'{name}{suffix}': value for name, value in scores._asdict().items()}
        if 'kid' in self.metrics:
            size = self.kid_subset_size
            pair = self.kept['features'], self._reference_features
            found[f'kid{suffix}'] = kernel_distance(*pair, generator=seeded(0), subset_size=size).mean
        return found

    def card(self) -> dict[str, Any]:
        """Name features, reference and how the samples' classes were chosen."""
        return {
            'extractor': self.extractor.card(),
            'reference': self.reference.card(),
            'values': '8-bit, rounded to the nearest',
            'labels': self._labels,
            'splits': self.splits,
            'kid_subset_size': self.kid_subset_size,
        }

    def _add(self, name: str, features: Tensor) -> None:
        self._moments.setdefault(name, FeatureMoments(features.shape[1])).add(features)


def _chosen(metrics: Sequence[str] | None, extractor: FeatureExtractor, reference: Reference) -> tuple[str, ...]:
    """Return the metrics asked for, all of which must be possible; by default all that are."""
    lacks = {
        'sfd': None if extractor.num_spatial else f'{extractor.key} has no spatial features',
        'is': None if extractor.frechet_key.startswith('fid') else f"{extractor.key} is not FID's Inception",
    }
    if extractor.num_spatial and reference.spatial is None:
        lacks['sfd'] = f'{reference.path} has no mu_s and sigma_s'
    if not reference.has_images:
        lacks |= dict.fromkeys(('pr', 'kid'), f'{reference.path} has no images (arr_0)')
    possible = tuple(name for name in _METRICS if lacks.get(name) is None)
    if metrics is None:
        return possible
    for name in metrics:
        if name not in possible:
            why = lacks.get(name) or f'there is no such metric; there are {", ".join(_METRICS)}'
            raise ValueError(f'GenerationMetric.metrics: {name!r}: {why}; accepted here are {", ".join(possible)}.')
    return tuple(metrics)
