"""The equivariance error: how far τ∘E(x) is from E(τ∘x)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from eqzoo.evaluators.base import Evaluator
from eqzoo.evaluators.view import AutoencoderView
from eqzoo.registry import EVALUATORS, EquivarianceTransform
from eqzoo.transforms import IsotropicScale, Rotate


@EVALUATORS.register_module()
class EquivarianceError(Evaluator):
    """Two measures for each named transform, averaged over its cases.

    With E the posterior mean in generator units, a = τ∘E(x), b = E(τ∘x):

    `eq_err/<name>` = Σ ‖a − b‖² / Σ ‖b − μ‖², sums over the images, μ the mean of b per
    channel over the set. 0 is perfect, 1 as bad as predicting the mean, 2 unrelated; it does
    not change with a factor on the latents or an offset on a channel.

    `eq_err_paper/<name>` = mean over images of ‖a − b‖² / ‖b‖² (EQ-VAE, App. C.3). An offset
    on the latents lowers it without any gain in equivariance.

    `eq_err/<name>/<case>` is the first one for each case alone. Latents that do not vary at
    all have no error: the value is NaN.

    Args:
        transforms: By name. Default: rotation by the three quarter turns, and scale by 0.25,
            0.5 and 0.75 with bicubic, antialiased resampling of images and latents, which
            has the lowest floor: about 0.006 for a perfectly equivariant encoder.
    """

    def __init__(self, transforms: Mapping[str, EquivarianceTransform] | None = None) -> None:
        super().__init__()
        self.transforms = transforms or {
            'rotation': Rotate(),
            'scale': IsotropicScale(interpolation='bicubic', antialias=True),
        }
        self.cases: dict[str, list[str]] = {}

    @torch.no_grad()
    def update(self, view: AutoencoderView) -> None:
        """Add a batch: one more encoding for each case.

        Raises:
            ValueError: If τ∘E(x) and E(τ∘x) differ in size.
        """
        for name, transform in self.transforms.items():
            cases = transform.cases(tuple(view.latents.shape[2:]))
            self.cases[name] = list(cases)
            for case, params in cases.items():
                transformed = transform(view.latents, params)
                encoded = view.autoencoder.latents(transform(view.images, params))
                if transformed.shape != encoded.shape:
                    raise ValueError(
                        f'EquivarianceError: {name} {case} turns latents into {tuple(transformed.shape[2:])} cells, '
                        f'but the transformed images encode to {tuple(encoded.shape[2:])}; '
                        'use cases that are exact on the latent grid.'
                    )
                self._add_case(f'{name}/{case}', transformed.double(), encoded.double())

    def _add_case(self, key: str, transformed: Tensor, encoded: Tensor) -> None:
        error = (transformed - encoded).square().sum(dim=(1, 2, 3))
        self.add(f'{key} error', error)
        self.add(f'{key} ratio', error / encoded.square().sum(dim=(1, 2, 3)))
        self.add(f'{key} value', encoded.sum(dim=(2, 3)))
        self.add(f'{key} square', encoded.square().sum(dim=(2, 3)))
        self.add(f'{key} cells', torch.full((len(encoded),), float(encoded[0, 0].numel())))

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return both errors of each transform, then the centred one of each case."""
        whole, single = {}, {}
        for name, cases in self.cases.items():
            keys = [f'{name}/{case}' for case in cases]
            centred = [_centred_error(sums, key) for key in keys]
            ratios = [(sums[f'{key} ratio'] / sums['count']).item() for key in keys]
            whole[f'eq_err/{name}'] = sum(centred) / len(centred)
            whole[f'eq_err_paper/{name}'] = sum(ratios) / len(ratios)
            single |= {f'eq_err/{key}': error for key, error in zip(keys, centred, strict=True)}
        return whole | single

    def card(self) -> dict[str, Any]:
        """Name the transforms and what is compared."""
        return {
            'transforms': {name: repr(transform) for name, transform in self.transforms.items()},
            'cases': self.cases,
            'latent': 'posterior mean in generator units',
            'average': 'over cases, never over transforms',
        }


def _centred_error(sums: Mapping[str, Tensor], key: str) -> float:
    """Return Σ ‖a − b‖² over Σ ‖b − μ‖²; the latter from moments, safe in float64."""
    value, square, cells = (sums[f'{key} {part}'] for part in ('value', 'square', 'cells'))
    variation = (square - value.square() / cells).sum()
    # rounding leaves about 1e-16 of the squares: anything below 1e-12 of them is a constant
    if variation <= 1e-12 * square.sum():
        return float('nan')
    return (sums[f'{key} error'] / variation).item()
