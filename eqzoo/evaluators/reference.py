"""Reference files: statistics of a reference set of images, in the layout of ADM's evaluator; reading and writing."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from eqzoo import __version__
from eqzoo.distributed import all_gather_object, get_device, rank_and_world_size, say_once
from eqzoo.evaluators.base import Evaluator, SampleView
from eqzoo.evaluators.gaussian import FeatureMoments, Gaussian, moments_of
from eqzoo.npz import NpzArchive, write_npz
from eqzoo.vision import FeatureExtractor

# The reference of shrunk configs.
SMOKE_REFERENCE = dict(type='Shapes', num_images=16, size=64)

_META = 'meta'
_REMEDY = 'make a reference with tools/reference.py'
_BATCH = 64


class Extractor(Protocol):
    """The part of an `eqzoo.vision.FeatureExtractor` that identifies its features."""

    key: str
    num_features: int
    frechet_key: str

    def card(self) -> Mapping[str, Any]:
        """Return how features are computed, in JSON types."""


class Reference:
    """The content of a reference file. The large array of images is read only by `images`.

    ADM's keys are `mu`, `sigma` of the pooled features, `mu_s`, `sigma_s` of the spatial ones and
    `arr_0`, images (N, H, W, 3), uint8, for precision and recall. eqzoo adds `meta`: JSON with the
    `extractor`, `num_images` and the `data` set's identity; and `features`, the pooled features of the
    images in `arr_0`. With an `autoencoder` in `meta`, the statistics are of its reconstructions of the images.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If `path` does not exist.
        ValueError: If it is no readable npz, or its statistics are missing or invalid.
    """

    def __init__(self, path: str | Path) -> None:
        self._archive = NpzArchive(path)
        self.path = self._archive.path
        self.pooled = self._gaussian('mu', 'sigma')
        has_spatial = 'mu_s' in self._archive or 'sigma_s' in self._archive
        self.spatial = self._gaussian('mu_s', 'sigma_s') if has_spatial else None
        self.meta = self._read_meta()

    @property
    def num_images(self) -> int | None:
        """The number of images behind the statistics; None for ADM's files, which do not contain it."""
        return self.meta['num_images'] if self.meta else None

    @property
    def num_listed(self) -> int | None:
        """The number of images of its data set, with those that could not be read; None for ADM's files."""
        return self.meta.get('num_listed', self.num_images) if self.meta else None

    @property
    def autoencoder(self) -> str | None:
        """The `autoencoder_digest` of the autoencoder whose reconstructions were measured; None if images were."""
        return (self.meta or {}).get('autoencoder')

    @property
    def has_images(self) -> bool:
        """Whether the file has images, for precision and recall."""
        return 'arr_0' in self._archive

    def images(self) -> np.ndarray:
        """Return the images (N, H, W, 3), uint8, mapped from the disk.

        Raises:
            ValueError: If there are none, or their shape or type differs.
        """
        images = self._archive.map('arr_0')
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise ValueError(
                f'{self.path}: arr_0 is {images.shape} of {images.dtype}; expected (N, H, W, 3) of uint8; {_REMEDY}.'
            )
        return images

    def features(self) -> Tensor | None:
        """Return the images' pooled features (N, D), float32, in their order; None if the file has none, like ADM's.

        Raises:
            ValueError: If they do not fit the images, or are damaged.
        """
        if 'features' not in self._archive:
            return None
        features = self._archive.read('features')
        expected = (len(self.images()), len(self.pooled.mean))
        if features.shape != expected or features.dtype != np.float32:
            raise ValueError(
                f'{self.path}: features are {features.shape} of {features.dtype}; for its images expected '
                f'{expected} of float32; {_REMEDY}.'
            )
        return torch.from_numpy(features)

    @property
    def size(self) -> int | None:
        """Side in pixels of the images that were measured: as `meta` says, or that of `arr_0`; None if unknown."""
        stated = self.meta['data'].get('size') if self.meta is not None else None
        return int(self.images().shape[1]) if stated is None and self.has_images else stated

    def check_images(self, size: int | None, crop: str | None = None) -> None:
        """Refuse samples of another size or crop than the images measured: their distances would be those of the sizes.

        A file that states no size, such as pytorch-fid's, is accepted with a remark.

        Args:
            size: Side of the samples, in pixels; None if unknown.
            crop: How the samples were cropped; None if unknown, 'exact' if they were not.

        Raises:
            ValueError: Naming both.
        """
        if size is None:
            return
        if self.size is None:
            say_once(
                f'{self.path}: does not say the size and the crop of its images; distances mean something only if they '
                f'were those of the samples, {size} x {size} pixels.'
            )
            return
        if size != self.size:
            raise ValueError(
                f'{self.path}: statistics of images of {self.size} x {self.size} pixels; the samples have {size} x '
                f'{size}. Make a reference of that size: python tools/reference.py IMAGES FILE.npz --size {size}.'
            )
        theirs = (self.meta or {'data': {}})['data'].get('crop')
        if crop not in (None, 'exact', theirs) and theirs is not None:
            raise ValueError(
                f'{self.path}: statistics of images cropped by {theirs!r}; these are cropped by {crop!r}. Crop both in '
                f'one way, or make another reference: python tools/reference.py IMAGES FILE.npz --crop {crop}.'
            )

    def card(self) -> dict[str, Any]:
        """Return the reference's identity, in JSON types; the hash is over the checksums of the statistics.

        Reconstructions are identified by their images alone: the autoencoder belongs to what is measured.
        """
        if self.autoencoder is not None:
            return {'num_images': self.num_images, 'data': self.meta['data']}
        names = [name for name in ('mu', 'sigma', 'mu_s', 'sigma_s') if name in self._archive]
        card = {'file': self.path.name, 'sha256': self._archive.fingerprint(names), 'num_images': self.num_images}
        return {**card, 'data': self.meta['data']} if self.meta else card

    def check(self, extractor: Extractor) -> None:
        """Refuse an extractor whose features are not those of this file.

        A file without `meta` is one of ADM's, whose features are those of the FID Inception.

        Raises:
            ValueError: With the difference.
        """
        if self.meta is None:
            if extractor.frechet_key != 'fid':
                raise ValueError(
                    f"{self.path}: no 'meta', so these are ADM's statistics, of the FID Inception; the features here "
                    f'are of {extractor.key!r} ({extractor.frechet_key}); {_REMEDY} for this extractor.'
                )
        else:
            theirs, ours = self.meta['extractor'], _describe(extractor)
            for name in sorted({*theirs, *ours}, key=lambda name: (name != 'key', name)):
                if theirs.get(name) != ours.get(name):
                    raise ValueError(
                        f'{self.path}: made with another extractor: its {name} is {theirs.get(name)!r}, here it is '
                        f'{ours.get(name)!r}; {_REMEDY} for this extractor.'
                    )
        if len(self.pooled.mean) != extractor.num_features:
            raise ValueError(
                f'{self.path}: features of {len(self.pooled.mean)} values; {extractor.key!r} has '
                f'{extractor.num_features}; {_REMEDY} for this extractor.'
            )

    def _gaussian(self, mean: str, covariance: str) -> Gaussian:
        for name in (mean, covariance):
            if name not in self._archive:
                raise ValueError(
                    f'{self.path}: no array {name!r}; it has {", ".join(self._archive.names)}; a reference has '
                    f'mu and sigma; this may be a file of samples: {_REMEDY}.'
                )
        arrays = [self._archive.read(name) for name in (mean, covariance)]
        try:
            return Gaussian(*(torch.from_numpy(np.asarray(array, np.float64)) for array in arrays))
        except (TypeError, ValueError) as error:
            raise ValueError(f'{self.path}: {mean}, {covariance}: {error}') from None

    def _read_meta(self) -> dict[str, Any] | None:
        if _META not in self._archive:
            return None
        try:
            meta = json.loads(str(self._archive.read(_META)))
        except json.JSONDecodeError:
            meta = None
        if (
            not isinstance(meta, dict)
            or not {'extractor', 'num_images', 'data'} <= meta.keys()
            or not all(isinstance(meta[name], dict) for name in ('extractor', 'data'))
        ):
            raise ValueError(
                f"{self.path}: 'meta' is invalid; expected JSON with extractor, num_images and data; {_REMEDY}."
            )
        return meta


def read_reference(path: str | Path, extractor: Extractor | None = None) -> Reference:
    """Read a reference file and, if an extractor is given, check that it has the extractor's features.

    Raises:
        FileNotFoundError: If `path` does not exist.
        ValueError: If it is no reference file, damaged, or has other features.
    """
    reference = Reference(path)
    if extractor is not None:
        reference.check(extractor)
    return reference


def write_reference(
    path: str | Path,
    extractor: Extractor,
    pooled: FeatureMoments,
    *,
    data: Mapping[str, Any],
    num_listed: int | None = None,
    spatial: FeatureMoments | None = None,
    images: Iterable[Tensor] = (),
    num_stored: int = 0,
    features: Tensor | None = None,
    autoencoder: str | None = None,
) -> None:
    """Write a reference file for `read_reference` and ADM's evaluator, with one batch of images in memory at a time.

    ADM's evaluator needs all its keys: an extractor with spatial features, and images.

    Args:
        path: The file; written atomically.
        extractor: Of the features.
        pooled: Moments of the pooled features of all images.
        data: The data set's identity.
        num_listed: Its number of images, with those that could not be read; by default those that were read.
        spatial: Moments of the spatial features, if the extractor has them.
        images: Batches (B, 3, H, W), uint8, of the images to store; 10,000 in ADM's files.
        num_stored: The number of stored images.
        features: Their pooled features (N, D), so that tests need not extract them again.
        autoencoder: The `autoencoder_digest` of an autoencoder, if the moments are of its reconstructions.

    Raises:
        ValueError: If there are fewer than two images; a feature is not finite; the stored images are not
            uint8, differ in size, or are not `num_stored`; or the number of features differs.
    """
    if len(pooled.mean) != extractor.num_features:
        raise ValueError(
            f'write_reference: moments of {len(pooled.mean)} features; {extractor.key!r} has {extractor.num_features}; '
            'give the moments of its pooled features.'
        )
    if features is not None and features.shape != (num_stored, extractor.num_features):
        raise ValueError(
            f'write_reference: features {tuple(features.shape)} of {num_stored} images; give '
            f'{(num_stored, extractor.num_features)}, one row per image.'
        )
    meta = {
        'extractor': _describe(extractor),
        'num_images': pooled.count,
        'num_listed': pooled.count if num_listed is None else num_listed,
        'data': dict(data),
        'eqzoo': __version__,
    }
    if autoencoder is not None:
        meta['autoencoder'] = autoencoder
    gaussians = {'': pooled.gaussian(), **({'_s': spatial.gaussian()} if spatial is not None else {})}
    with write_npz(path) as npz:
        for suffix, gaussian in gaussians.items():
            npz.add(f'mu{suffix}', gaussian.mean.numpy())
            npz.add(f'sigma{suffix}', gaussian.covariance.numpy())
        npz.add(_META, json.dumps(meta))
        if num_stored:
            npz.add_images('arr_0', images, num_stored)
        if features is not None:
            npz.add('features', features.float().cpu().numpy())


def _describe(extractor: Extractor) -> dict[str, Any]:
    """Return key and card after a round trip through JSON, in which a tuple becomes a list."""
    return json.loads(json.dumps({'key': extractor.key, **extractor.card()}))


class ReferenceMoments(Evaluator):
    """Moments of a reference set's features, available as `pooled` and `spatial` after `evaluate`; no metric.

    Args:
        extractor: The features.
        stored: Numbers of the images that the reference keeps. After `evaluate`, `stored` has the numbers (N,)
            of those that could be read, in order, and `features` their pooled features (N, D).
    """

    def __init__(self, extractor: FeatureExtractor, stored: Iterable[int] = ()) -> None:
        super().__init__()
        self.extractor = extractor
        self.stored = torch.tensor(sorted(stored), dtype=torch.int64)
        self.features: Tensor | None = None
        self.pooled: FeatureMoments | None = None
        self.spatial: FeatureMoments | None = None

    @torch.no_grad()
    def update(self, view: SampleView) -> None:
        """Add a batch's features."""
        features = self.extractor(view.images)
        for name in ('pooled', 'spatial') if self.extractor.num_spatial else ('pooled',):
            self.add_features(name, getattr(features, name))
        numbers = view.numbers.cpu()
        is_stored = torch.isin(numbers, self.stored)
        if is_stored.any():
            self.keep('numbers', numbers[is_stored], numbers[is_stored])
            self.keep('features', features.pooled.cpu()[is_stored], numbers[is_stored])

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Set the moments and features of all processes; return no metric."""
        self.stored, self.features = self.kept.get('numbers', self.stored[:0]), self.kept.get('features')
        self.pooled = moments_of(sums, 'pooled')
        self.spatial = moments_of(sums, 'spatial') if self.extractor.num_spatial else None
        return {}

    def card(self) -> dict[str, Any]:
        """Return the features."""
        return {'extractor': self.extractor.card()}


@torch.no_grad()
def image_features(extractor: FeatureExtractor, images: np.ndarray) -> Tensor:
    """Return pooled features (N, D) of images (N, H, W, 3), uint8; the work is divided among the processes."""
    rank, world_size = rank_and_world_size()
    numbers, device = range(rank, len(images), world_size), get_device()
    own = []
    for start in range(0, len(numbers), _BATCH):
        batch = np.ascontiguousarray(images[list(numbers[start : start + _BATCH])])
        own.append(extractor(torch.from_numpy(batch).permute(0, 3, 1, 2).to(device)).pooled.cpu())
    features = torch.empty(len(images), extractor.num_features)
    for other, share in enumerate(all_gather_object(torch.cat(own) if own else features[:0])):
        features[other::world_size] = share
    return features
