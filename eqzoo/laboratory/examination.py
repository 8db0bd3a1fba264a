"""Examination of an autoencoder on images: the models, the transforms, and all measures and pictures."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eqzoo.autoencoders import Autoencoder
from eqzoo.engine.evaluation import merge_metrics, run_evaluators, split_cases
from eqzoo.evaluators import (
    AutoencoderView,
    EffectiveRank,
    EquivarianceError,
    LatentSpectrum,
    LatentStatistics,
    ReconstructionMetric,
    SpatialStructure,
    VelocityVariance,
)
from eqzoo.evaluators.velocity import MIN_CLASS_IMAGES
from eqzoo.images import psnr, to_float
from eqzoo.loading import load_autoencoder
from eqzoo.report import run_names
from eqzoo.transforms import IsotropicScale, Rotate, Turn
from eqzoo.transforms.base import Transform, valid_area

_BATCH_PIXELS = 4 * 256 * 256  # at once: about 4 GB in the decoder of Stable Diffusion
_MIN_SPECTRUM = 4  # cells a side; smaller latents have no slope
_UNTRANSFORMED = {'turn': 0.0, 'scale': 1.0}  # the end of a transform's curve


class Model(NamedTuple):
    """An autoencoder in evaluation mode, its name, and the source it was loaded from."""

    name: str
    source: str
    autoencoder: Autoencoder

    @property
    def num_parameters(self) -> int:
        """Number of learned values, of encoder and decoder."""
        return sum(parameter.numel() for parameter in self.autoencoder.parameters())


def open_models(sources: Sequence[str], names: Sequence[str] | None = None) -> list[Model]:
    """Load autoencoders.

    Args:
        sources: Each one as `eqzoo.load` takes it, or the two files ENCODER,DECODER.
        names: One for each; by default the shortest ends of the sources that are all different.

    Raises:
        ValueError: If the names are not different or not as many as the sources, a model is not in the zoo, or a
            file does not fit.
        OSError: If a file does not exist or cannot be downloaded.
    """
    if names is None:
        names = run_names([Path(source) for source in sources])
    names = [name.strip() for name in names]
    if len(names) != len(sources) or len(set(names)) != len(names) or not all(names):
        raise ValueError(
            f'--names: got {", ".join(map(repr, names))} for {len(sources)} models; expected as many different '
            'names, separated by commas.'
        )
    return [Model(name, source, load_autoencoder(source)) for name, source in zip(names, sources, strict=True)]


class Cases(NamedTuple):
    """The transforms to examine.

    Args:
        turn: Its cases are the angles.
        scale: Its cases are the scales.
        remarks: Angles and scales that were left out or changed.
    """

    turn: Turn
    scale: IsotropicScale
    remarks: list[str]


def choose_cases(angles: Sequence[float], scales: Sequence[float], grids: Sequence[tuple[int, int]]) -> Cases:
    """Return those of `angles` and `scales` that are possible on all of `grids` (h, w).

    Scales are rounded to whole numbers of cells. An angle is left out if the rotated border covers
    all cells of some latents.

    Raises:
        ValueError: If a value is out of range, or none is possible.
    """
    scale_of = dict(interpolation='bicubic', antialias=True)  # as `EquivarianceError` does by default
    turn = Turn(eval_angles=tuple(angles))
    IsotropicScale(eval_scales=tuple(scales), **scale_of)  # refuses invalid scales
    smallest = min(grids, key=min)
    kept = [angle for angle in angles if all(turn.mask(grid, angle).any() for grid in grids)]
    cells = math.gcd(*(side for grid in grids for side in grid))
    whole = sorted({min(max(round(scale * cells), 1), cells - 1) / cells for scale in scales}) if cells > 1 else []
    if not kept or not whole:
        raise ValueError(
            f'angles and scales: no angle, or no scale, leaves any cell of latents of {smallest[0]} x {smallest[1]} '
            'cells; use larger images (--size).'
        )
    remarks = []
    if len(kept) < len(angles):
        left_out = ', '.join(f'{angle:g}°' for angle in angles if angle not in kept)
        remarks.append(f'Left out: {left_out}, which would leave none of {smallest[0]} x {smallest[1]} cells.')
    if whole != sorted(set(scales)):
        remarks.append(f'Scales rounded to whole cells: {", ".join(f"{scale:.3g}" for scale in whole)}.')
    return Cases(Turn(eval_angles=tuple(kept)), IsotropicScale(eval_scales=tuple(reversed(whole)), **scale_of), remarks)


class Transformed(NamedTuple):
    """The first images and latents under one case of a transform, on the CPU.

    Args:
        target: τ∘x (B, 3, H', W'), in [-1, 1].
        decoded: D(τ∘E(x)), of the same shape.
        psnr: Of `decoded` against `target`, in dB, one for each image; the border that τ fills in is masked.
        latents: τ∘E(x) (B, C, h', w'), in generator units.
        encoded: E(τ∘x), of the same shape.
    """

    target: Tensor
    decoded: Tensor
    psnr: list[float]
    latents: Tensor
    encoded: Tensor


class Examination(NamedTuple):
    """The measures and pictures of one autoencoder, on the CPU.

    Args:
        metrics: By name, over all images; None if the value is not finite.
        cases: The same for single cases and standard errors.
        curves: (x, y) by measure and transform: 'eq_err/turn', 'eq_rec/scale', …, and 'spectrum'.
        psnr: Of each image, in dB.
        latents: E(x) (N, C, h, w) of all images, in generator units.
        reconstructions: D(E(x)) (B, 3, H, W) of the first images.
        transformed: By transform and case, of the first images.
        card: The protocol of each evaluator.
    """

    metrics: dict[str, float | None]
    cases: dict[str, float | None]
    curves: dict[str, tuple[list[float], list[float | None]]]
    psnr: list[float]
    latents: Tensor
    reconstructions: Tensor
    transformed: dict[str, dict[str, Transformed]]
    card: dict[str, dict[str, Any]]


@torch.no_grad()
def examine(
    autoencoder: Autoencoder, pixels: Tensor, cases: Cases, *, shown: int, device: str | torch.device = 'cpu'
) -> Examination:
    """Measure `autoencoder`, in evaluation mode, on images, and keep pictures of the first `shown`.

    Args:
        autoencoder: Moved to `device` while it is measured.
        pixels: (N, 3, H, W), uint8.
        cases: The transforms to measure with, besides quarter turns.
        shown: Number of images whose transformed versions are kept.
        device: Device to compute on.

    Raises:
        ValueError: If the images are too small for a metric, or latents are not finite.
    """
    home = autoencoder.last_layer.device
    autoencoder.to(device)
    transforms = {'turn': cases.turn, 'scale': cases.scale}
    evaluators = [
        ReconstructionMetric(),
        EquivarianceError({'rotation': Rotate(), **transforms}, image_side=True),
        LatentStatistics(),
        EffectiveRank(),
        SpatialStructure(),
    ]
    if len(pixels) >= MIN_CLASS_IMAGES:
        evaluators.append(VelocityVariance())  # of one Gaussian: photographs have no labels here
    if min(autoencoder.grid(*pixels.shape[2:])) >= _MIN_SPECTRUM:
        evaluators.append(LatentSpectrum())
    at_once = max(1, _BATCH_PIXELS // pixels[0, 0].numel())
    psnrs, latents = [], []

    def views() -> Iterator[AutoencoderView]:
        for numbers in torch.arange(len(pixels)).split(at_once):
            view = AutoencoderView(autoencoder, to_float(pixels[numbers].to(device)), numbers)
            yield view
            psnrs.extend(psnr(view.reconstruction, view.images).tolist())
            latents.append(view.latents.cpu())

    found = merge_metrics(run_evaluators(evaluators, views(), len(pixels)))
    first = [AutoencoderView(autoencoder, to_float(batch.to(device))) for batch in pixels[:shown].split(at_once)]
    values = {name: value if math.isfinite(value) else None for name, value in found.items()}
    examination = Examination(
        *split_cases(values),
        _curves(values, transforms, [curve for evaluator in evaluators for curve in evaluator.curves]),
        psnrs,
        torch.cat(latents),
        torch.cat([view.reconstruction.cpu() for view in first]),
        {name: _transform_all(first, transform) for name, transform in transforms.items()},
        {type(each).__name__: each.card() for each in evaluators},
    )
    autoencoder.to(home)
    return examination


def _transform_all(views: Sequence[AutoencoderView], transform: Transform) -> dict[str, Transformed]:
    """Return all views' images and latents under each case of `transform`."""
    cases = transform.cases(tuple(views[0].latents.shape[2:]))
    return {
        case: _concatenate([_transformed(view, transform, params) for view in views]) for case, params in cases.items()
    }


def _transformed(view: AutoencoderView, transform: Transform, params: Any) -> Transformed:
    autoencoder = view.autoencoder
    target, latents = transform(view.images, params), transform(view.latents, params)
    decoded = autoencoder.decode(autoencoder.normalization.denormalize(latents))
    mask = valid_area(transform, tuple(view.images.shape[2:]), params)
    close = psnr(decoded, target, mask).tolist()
    return Transformed(target.cpu(), decoded.cpu(), close, latents.cpu(), autoencoder.latents(target).cpu())


def _concatenate(parts: Sequence[Transformed]) -> Transformed:
    target, decoded, close, latents, encoded = zip(*parts, strict=True)
    return Transformed(torch.cat(target), torch.cat(decoded), [*chain(*close)], torch.cat(latents), torch.cat(encoded))


def _curves(
    values: Mapping[str, float | None], transforms: Mapping[str, Transform], drawn: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[list[float], list[float | None]]]:
    """Return each measure over the angles and over the scales, with the untransformed images, and the spectrum."""
    curves = {}
    for name in transforms:
        for kind, untransformed in (('eq_err', 0.0), ('eq_rec', values['psnr'])):
            start = f'{kind}/{name}/'
            points = {float(key.removeprefix(start)): values[key] for key in values if key.startswith(start)}
            points[_UNTRANSFORMED[name]] = untransformed
            curves[f'{kind}/{name}'] = sorted(points), [points[x] for x in sorted(points)]
    for curve in drawn:
        if curve['title'] == 'Latent spectrum':
            (series,) = curve['series']
            curves['spectrum'] = series['x'], series['y']
    return curves
