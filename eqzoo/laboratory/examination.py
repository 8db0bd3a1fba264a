"""The autoencoders to look into, and what to call them."""

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eqzoo.autoencoders import Autoencoder
from eqzoo.engine.evaluation import compute
from eqzoo.evaluators import AutoencoderView, EquivarianceError, LatentSpectrum, LatentStatistics, ReconstructionMetric
from eqzoo.evaluators.equivariance import psnr
from eqzoo.images import to_float
from eqzoo.loading import load_autoencoder
from eqzoo.report import run_names
from eqzoo.transforms import IsotropicScale, Rotate, Turn
from eqzoo.transforms.base import Transform, valid_area


class Model(NamedTuple):
    """An autoencoder in evaluation mode, what to call it, and where it is from."""

    name: str
    source: str
    autoencoder: Autoencoder

    @property
    def num_parameters(self) -> int:
        """How many numbers it has learned."""
        return sum(parameter.numel() for parameter in self.autoencoder.parameters())


def open_models(sources: Sequence[str], names: Sequence[str] | None = None) -> list[Model]:
    """Load autoencoders.

    Args:
        sources: Autoencoders, as `eqzoo.load` takes them.
        names: One for each; by default as much of each source as tells it from the others.

    Raises:
        ValueError: If there are not as many different names, a name is not in the zoo, or a file does not fit.
        OSError: If a file is not there, or cannot be downloaded.
    """
    if names is None:
        names = run_names([Path(source) for source in sources])
    names = [name.strip() for name in names]
    if len(names) != len(sources) or len(set(names)) != len(names) or not all(names):
        raise ValueError(
            f'--names: got {", ".join(map(repr, names))} for {len(sources)} models; accepted are as many different '
            'names, separated by commas.'
        )
    return [Model(name, source, load_autoencoder(source)) for name, source in zip(names, sources, strict=True)]


class Cases(NamedTuple):
    """Transforms whose cases are looked at.

    Args:
        turn: By the angles.
        scale: By the scales.
        remarks: What had to be left out or changed.
    """

    turn: Turn
    scale: IsotropicScale
    remarks: list[str]


def choose_cases(angles: Sequence[float], scales: Sequence[float], grids: Sequence[tuple[int, int]]) -> Cases:
    """Return `angles` and `scales` that are possible on all of `grids` (h, w).

    Scales are taken to the nearest whole number of cells. Angles of which no cell of the smallest latents
    is left once the border is, are left out.

    Raises:
        ValueError: If a value is out of range, or nothing is left.
    """
    scale_of = dict(interpolation='bicubic', antialias=True)  # as `EquivarianceError` measures by default
    turn = Turn(eval_angles=tuple(angles))
    IsotropicScale(eval_scales=tuple(scales), **scale_of)  # refuses what is no scale
    smallest = min(grids, key=min)
    kept = [angle for angle in angles if all(turn.mask(grid, angle).any() for grid in grids)]
    cells = math.gcd(*(side for grid in grids for side in grid))
    whole = sorted({min(max(round(scale * cells), 1), cells - 1) / cells for scale in scales}) if cells > 1 else []
    if not kept or not whole:
        raise ValueError(
            f'angles and scales: none of them leaves anything of latents of {smallest[0]} x {smallest[1]} cells; use '
            'larger images (--size).'
        )
    remarks = []
    if len(kept) < len(angles):
        left_out = ', '.join(f'{angle:g}°' for angle in angles if angle not in kept)
        remarks.append(f'Left out: {left_out}, of which nothing of {smallest[0]} x {smallest[1]} cells would count.')
    if whole != sorted(set(scales)):
        remarks.append(f'Scales taken to whole cells: {", ".join(f"{scale:.3g}" for scale in whole)}.')
    return Cases(Turn(eval_angles=tuple(kept)), IsotropicScale(eval_scales=tuple(reversed(whole)), **scale_of), remarks)


_BATCH_PIXELS = 4 * 256 * 256  # at once: some 4 GB in the decoder of Stable Diffusion
_MIN_SPECTRUM = 4  # cells a side; fewer have no slope
_UNTRANSFORMED = {'turn': 0.0, 'scale': 1.0}  # where curves of a transform begin or end

Curve = tuple[list[float], list[float | None]]


class Transformed(NamedTuple):
    """The first images and latents under one case of a transform, on the CPU.

    Args:
        target: τ∘x (B, 3, H', W'), in [-1, 1].
        decoded: D(τ∘E(x)), as large.
        psnr: Of the one from the other, in dB, a number an image; what τ fills in does not count.
        latents: τ∘E(x) (B, C, h', w'), in generator units.
        encoded: E(τ∘x), as large.
    """

    target: Tensor
    decoded: Tensor
    psnr: list[float]
    latents: Tensor
    encoded: Tensor


class Examination(NamedTuple):
    """What was found, on the CPU.

    Args:
        metrics: By name, over all images; None where the value is no number.
        cases: The same of single cases and of standard errors.
        curves: (x, y) by what is measured and over what: 'eq_err/turn', 'eq_rec/scale', 'spectrum', …
        psnr: Of each image, in dB.
        latents: E(x) (N, C, h, w) of all images, in generator units.
        reconstructions: D(E(x)) (B, 3, H, W) of the first ones.
        transformed: By transform and case, of the first ones.
        card: How each evaluator measured.
    """

    metrics: dict[str, float | None]
    cases: dict[str, float | None]
    curves: dict[str, Curve]
    psnr: list[float]
    latents: Tensor
    reconstructions: Tensor
    transformed: dict[str, dict[str, Transformed]]
    card: dict[str, dict[str, Any]]


@torch.no_grad()
def examine(
    autoencoder: Autoencoder, pixels: Tensor, cases: Cases, *, shown: int, device: str | torch.device = 'cpu'
) -> Examination:
    """Measure `autoencoder`, in evaluation mode, on images, and keep what it makes of the first `shown`.

    Args:
        autoencoder: Moved to `device` meanwhile.
        pixels: (N, 3, H, W), uint8.
        cases: The transforms to measure with, besides quarter turns.
        shown: How many images are kept transformed.
        device: Where to compute.

    Raises:
        ValueError: If a metric cannot be had of images so small, or latents are not finite.
    """
    home = autoencoder.last_layer.device
    autoencoder.to(device)
    transforms = {'turn': cases.turn, 'scale': cases.scale}
    evaluators = [
        ReconstructionMetric(),
        EquivarianceError({'rotation': Rotate(), **transforms}, image_side=True),
        LatentStatistics(),
    ]
    if min(autoencoder.grid(*pixels.shape[2:])) >= _MIN_SPECTRUM:
        evaluators.append(LatentSpectrum())
    at_once = max(1, _BATCH_PIXELS // pixels[0, 0].numel())
    views = (AutoencoderView(autoencoder, to_float(batch.to(device))) for batch in pixels.split(at_once))
    psnrs, latents = [], []
    for view in views:
        for evaluator in evaluators:
            evaluator.process({}, [view])
        psnrs += psnr(view.reconstruction, view.images).tolist()
        latents.append(view.latents.cpu())
    first = [AutoencoderView(autoencoder, to_float(batch.to(device))) for batch in pixels[:shown].split(at_once)]
    found = compute(evaluators, len(pixels))
    values = {name: value if math.isfinite(value) else None for name, value in found.items()}
    metrics = {name: value for name, value in values.items() if not _is_case(name)}
    examination = Examination(
        metrics,
        {name: value for name, value in values.items() if name not in metrics},
        _curves(values, transforms, evaluators[-1].curves),
        psnrs,
        torch.cat(latents),
        torch.cat([view.reconstruction.cpu() for view in first]),
        {name: _under(first, transform) for name, transform in transforms.items()},
        {type(each).__name__: each.card() for each in evaluators},
    )
    autoencoder.to(home)
    return examination


def _under(views: Sequence[AutoencoderView], transform: Transform) -> dict[str, Transformed]:
    """Return what becomes of all views under each case of `transform`."""
    cases = transform.cases(tuple(views[0].latents.shape[2:]))
    return {
        case: _together([_transformed(view, transform, params) for view in views]) for case, params in cases.items()
    }


def _transformed(view: AutoencoderView, transform: Transform, params: Any) -> Transformed:
    autoencoder = view.autoencoder
    target, latents = transform(view.images, params), transform(view.latents, params)
    decoded = autoencoder.decode(autoencoder.normalization.denormalize(latents))
    mask = valid_area(transform, tuple(view.images.shape[2:]), params)
    close = psnr(decoded, target, mask).tolist()
    return Transformed(target.cpu(), decoded.cpu(), close, latents.cpu(), autoencoder.latents(target).cpu())


def _together(parts: Sequence[Transformed]) -> Transformed:
    target, decoded, close, latents, encoded = zip(*parts, strict=True)
    return Transformed(torch.cat(target), torch.cat(decoded), [*chain(*close)], torch.cat(latents), torch.cat(encoded))


def _curves(
    values: Mapping[str, float | None], transforms: Mapping[str, Transform], drawn: Sequence[Mapping[str, Any]]
) -> dict[str, Curve]:
    """Return the measures of each case over what it is a number of, from no transform on, and the spectrum."""
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


def _is_case(name: str) -> bool:
    return name.count('/') == 2 or ('/' in name and name.endswith('_std'))
