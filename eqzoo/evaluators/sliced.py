"""Sliced Wasserstein distance of image sets, on small patches of a Laplacian pyramid; it needs no network.

Karras et al. 2018 (Progressive Growing of GANs), section 5. Usage: `patches` of every batch of
both sets, then `sliced_wasserstein` of all of them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from eqzoo.evaluators.base import AutoencoderView, Evaluator, SampleView
from eqzoo.evaluators.reference import SMOKE_REFERENCE, Reference, read_reference
from eqzoo.precision import full_precision
from eqzoo.randomness import seeded
from eqzoo.registry import EVALUATORS

_SIDE = 7  # of a patch, as in Karras et al.
_MIN_SIZE = 16  # of the coarsest level, as in Karras et al.
_DIRECTIONS = 512  # 4 repeats of 128 in their code
_DIRECTION_BLOCK = 64  # directions at a time, which bounds the memory
_SCALE = 1e3  # of reported values, as in Karras et al.
_PATCH_BUDGET = 1 << 17  # patches of each level that are kept of a set: 39 MB a level at 147 half floats
_MAX_PATCHES = 128  # of one image
_BATCH = 64


class SlicedWasserstein(NamedTuple):
    """Distances times 1,000.

    Args:
        mean: Over the levels; what is reported as `swd`.
        levels: From fine to coarse.
    """

    mean: float
    levels: tuple[float, ...]


def num_levels(size: tuple[int, int]) -> int:
    """Return the number of pyramid levels for images of `size` (H, W): halved while even and at least 16 pixels.

    Raises:
        ValueError: If the images are smaller than 16 pixels.

    Example:
        >>> num_levels((32, 32)), num_levels((256, 256)), num_levels((240, 320))
        (2, 5, 4)
    """
    if min(size) < _MIN_SIZE:
        raise ValueError(f'swd: images of {size} pixels; expected at least {_MIN_SIZE} on both sides.')
    levels = 1
    while all(side % 2 == 0 and side // 2 >= _MIN_SIZE for side in size):
        size, levels = (size[0] // 2, size[1] // 2), levels + 1
    return levels


def patches_per_image(num_images: int) -> int:
    """Return how many patches of each level to keep of one image, 1 to 128, so that a set has about 2**17.

    Memory then does not grow with the number of images, up to 2**17 images.

    Example:
        >>> patches_per_image(1000), patches_per_image(50_000)
        (128, 2)
    """
    return min(max(_PATCH_BUDGET // num_images, 1), _MAX_PATCHES)


def laplacian_pyramid(images: Tensor, levels: int) -> list[Tensor]:
    """Return the detail lost by each halving of `images` (B, C, H, W), from fine to coarse, and the smallest images."""
    pyramid = []
    for _ in range(levels - 1):
        smaller = _blurred(images)[:, :, ::2, ::2]
        pyramid.append(images - _doubled(smaller))
        images = smaller
    return [*pyramid, images]


def patches(images: Tensor, numbers: Tensor, per_image: int) -> list[Tensor]:
    """Return random patches of every level: a list of (B, per_image, C · 7 · 7), half precision.

    The positions depend on the image's number only: batches and processes change nothing, and
    an image and its reconstruction are cut at the same positions.

    Args:
        images: (B, C, H, W), uint8.
        numbers: The images' positions in their set (B,).
        per_image: Patches of each level; see `patches_per_image`.

    Raises:
        TypeError: If the images are not uint8.
        ValueError: If they are smaller than 16 pixels.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f'swd: images must be uint8, got {images.dtype}.')
    pyramid = laplacian_pyramid(images.float(), num_levels(tuple(images.shape[2:])))
    return [_cut(level, numbers, per_image, index) for index, level in enumerate(pyramid)]


def sliced_wasserstein(first: Sequence[Tensor], second: Sequence[Tensor]) -> SlicedWasserstein:
    """Return the distance between two sets of patches, each from `patches` of all images.

    Each channel of each set and level is normalised to mean 0 and standard deviation 1, so that the contrast
    and colour of a whole set do not count; then the Wasserstein-1 distances of projections onto 512 random
    directions are averaged. It is not zero for two samples of one distribution (about 10 for 5,000 images
    of 32 pixels): compare values of one number of images only.

    Args:
        first: A tensor (…, C · 7 · 7) for each level.
        second: Likewise; the number of patches may differ.

    Raises:
        ValueError: If levels or patches do not match, or a set has fewer than two patches.
    """
    shapes = [[tuple(level.shape) for level in each] for each in (first, second)]
    if [shape[-1] for shape in shapes[0]] != [shape[-1] for shape in shapes[1]]:
        raise ValueError(
            f'swd: the sets have levels of {shapes[0]} and {shapes[1]}; expected images of one size; '
            'resize one of the sets.'
        )
    levels = []
    for index, (a, b) in enumerate(zip(first, second, strict=True)):
        directions = torch.randn(a.shape[-1], _DIRECTIONS, generator=seeded(0, 1, index))
        directions = (directions / directions.norm(dim=0)).to(a.device)
        a, b = _normalized(a), _normalized(b)
        blocks = directions.split(_DIRECTION_BLOCK, dim=1)
        distances = [_wasserstein(_sorted_projections(a, each), _sorted_projections(b, each)) for each in blocks]
        levels.append(_SCALE * torch.cat(distances).mean().item())
    return SlicedWasserstein(math.fsum(levels) / len(levels), tuple(levels))


def _blurred(images: Tensor, gain: float = 1.0) -> Tensor:
    """Filter with the binomial kernel of five taps; borders are mirrored without repeating the edge pixel."""
    taps = images.new_tensor([1, 4, 6, 4, 1]) / 16
    kernel = (gain * taps[:, None] * taps[None, :]).expand(images.shape[1], 1, 5, 5)
    with full_precision():
        return F.conv2d(F.pad(images, (2, 2, 2, 2), mode='reflect'), kernel, groups=images.shape[1])


def _doubled(images: Tensor) -> Tensor:
    spread = images.new_zeros(*images.shape[:2], 2 * images.shape[2], 2 * images.shape[3])
    spread[:, :, ::2, ::2] = images
    return _blurred(spread, 4.0)  # the gain makes up for the three of four values that are zero


def _cut(level: Tensor, numbers: Tensor, per_image: int, index: int) -> Tensor:
    """Return random patches (B, per_image, C · 49) of the pyramid's level number `index`."""
    rows, columns = (side - _SIDE + 1 for side in level.shape[2:])
    windows = level.unfold(2, _SIDE, 1).unfold(3, _SIDE, 1)  # (B, C, rows, columns, 7, 7), a view
    draws = [torch.randint(rows * columns, (per_image,), generator=seeded(0, index, 0, n)) for n in numbers.tolist()]
    places = torch.stack(draws).to(level.device)
    images = torch.arange(len(level), device=level.device)[:, None]
    cut = windows[images, :, places // columns, places % columns]  # (B, per_image, C, 7, 7)
    return cut.flatten(2).half()


def _normalized(patches: Tensor) -> Tensor:
    """Return patches (N, C · 49), float32, each channel with mean 0 and standard deviation 1 over all patches."""
    flat = patches.flatten(0, -2)
    if len(flat) < 2:
        raise ValueError(f'swd: a set has {len(flat)} patches; expected at least 2.')
    channels = flat.float().unflatten(1, (-1, _SIDE**2))
    mean, std = channels.mean(dim=(0, 2), keepdim=True), channels.std(dim=(0, 2), keepdim=True)
    return ((channels - mean) / std.clamp_min(1e-8)).flatten(1)


def _sorted_projections(patches: Tensor, directions: Tensor) -> Tensor:
    with full_precision():
        projections = directions.T @ patches.T
    if projections.is_cuda:
        return projections.sort(dim=1).values
    projections.numpy().sort(axis=1)  # in place; three times as fast as torch's, which also returns the order
    return projections


def _wasserstein(a: Tensor, b: Tensor) -> Tensor:
    """Return the exact Wasserstein-1 distances (P,) between sorted samples (P, N) and (P, M)."""
    if a.shape == b.shape:
        return (a - b).abs().mean(dim=1)
    n, m = a.shape[1], b.shape[1]
    # the distance is the integral of |difference of the quantile functions|; both are constant between these
    # points, which are in units of 1 / (n m)
    points = torch.cat([torch.arange(n + 1) * m, torch.arange(1, m) * n]).unique().to(a.device)
    starts, lengths = points[:-1], points.diff() / (n * m)
    return ((a[:, starts // m] - b[:, starts // n]).abs() * lengths).sum(dim=1)


class _KeptPatches(Evaluator):
    """Keeps patches of sets of images by name; the number per image depends on the number of images."""

    def __init__(self) -> None:
        super().__init__()
        self._per_image: int | None = None

    def check(self, num_images: int) -> None:
        """Set the number of patches per image."""
        self._per_image = patches_per_image(num_images)

    def _keep(self, name: str, images: Tensor, numbers: Tensor) -> None:
        if self._per_image is None:
            raise ValueError(f'{type(self).__name__}: call check(num_images) before the first batch.')
        for level, cut in enumerate(patches(images, numbers, self._per_image)):
            self.keep(f'{name} {level}', cut, numbers)

    def _levels(self, name: str) -> list[Tensor]:
        levels = {
            int(key.removeprefix(f'{name} ')): rows for key, rows in self.kept.items() if key.startswith(f'{name} ')
        }
        return [levels[level] for level in sorted(levels)]


@EVALUATORS.register_module()
class ReconstructionSlicedWasserstein(_KeptPatches):
    """`swd`: sliced Wasserstein distance between the patches of all reconstructions and of all images.

    An image and its reconstruction are cut at the same positions, so that only the changes by reconstruction
    count: perfect reconstructions have 0. Compare values of one number of images only.
    """

    @torch.no_grad()
    def update(self, view: AutoencoderView) -> None:
        """Keep patches of a batch."""
        self._keep('target', view.images_uint8, view.numbers)
        self._keep('reconstruction', view.reconstruction_uint8, view.numbers)

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the distance."""
        return {'swd': sliced_wasserstein(self._levels('reconstruction'), self._levels('target')).mean}

    def card(self) -> dict[str, Any]:
        """Return the values and patches that are compared."""
        return {
            'values': '8-bit',
            'patches': f'7 x 7, {self._per_image} of each level of each image, in the same places of both sets',
            'latent': 'posterior mean',
        }


@EVALUATORS.register_module()
class GenerationSlicedWasserstein(_KeptPatches):
    """`swd`: sliced Wasserstein distance between the patches of samples and of a reference's images.

    Two halves of one set of 10,000 images of 32 pixels have about 10, not 0: compare values of one number of
    images only.

    Args:
        reference: A file with images, as ADM's evaluator or `tools/reference.py` writes it; in a config
            also a data set, which `tools/test.py` measures once.

    Raises:
        ValueError: If it is no reference file.
        FileNotFoundError: If it does not exist.
    """

    def __init__(self, reference: str | Reference | Dataset) -> None:
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

    def check_images(self, size: int | None, crop: str | None) -> None:
        """Refuse samples of another size or crop than the reference's images; see `Reference.check_images`."""
        self.reference.check_images(size, crop)

    @torch.no_grad()
    def update(self, view: SampleView) -> None:
        """Keep patches of a batch."""
        self.reference.check_images(view.images.shape[-1])
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
        """Return the values and patches that are compared."""
        card = {'values': '8-bit', 'patches': f'7 x 7, {self._per_image} of each level of each sample'}
        return {**card, 'reference': self.reference.card()}
