"""The equivariance error: how far τ∘E(x) is from E(τ∘x)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from eqzoo.evaluators.base import Evaluator, to_double
from eqzoo.evaluators.view import AutoencoderView
from eqzoo.registry import EVALUATORS, EquivarianceTransform
from eqzoo.transforms import IsotropicScale, Rotate
from eqzoo.transforms.base import require_transform


@EVALUATORS.register_module()
class EquivarianceError(Evaluator):
    """Two measures for each named transform, averaged over its cases.

    With E the posterior mean in generator units, a = τ∘E(x), b = E(τ∘x):

    `eq_err/<name>` = Σ ‖a − b‖² / Σ ‖b − μ‖², sums over the images, μ the mean of b per
    channel over the set. 0 is perfect, 1 as bad as predicting the mean, 2 unrelated; it does
    not change with a factor on the latents or an offset on a channel.

    `eq_err_paper/<name>` = mean over images of ‖a − b‖² / ‖b‖² (EQ-VAE, App. C.3). An offset
    on the latents lowers it without any gain in equivariance, and constant latents have 0;
    it is not finite if an image's latents are all 0.

    `eq_err/<name>/<case>` is the first one for each case alone. Latents that do not vary at
    all have no error: the value is NaN.

    Args:
        transforms: By name. Default: rotation by the three quarter turns, and scale by 0.25,
            0.5 and 0.75 with bicubic, antialiased resampling of images and latents, which
            has the lowest floor: about 0.006 for a perfectly equivariant encoder.

    Raises:
        ValueError: If there is no transform, or a name that is empty or has a slash.
        TypeError: If a value is no transform.
    """

    def __init__(self, transforms: Mapping[str, EquivarianceTransform] | None = None) -> None:
        super().__init__()
        if transforms is None:
            scale = IsotropicScale(interpolation='bicubic', antialias=True)
            transforms = {'rotation': Rotate(), 'scale': scale}
        if not transforms or not all(name and '/' not in name for name in transforms):
            raise ValueError(
                'EquivarianceError.transforms must be one or more transforms by name, names without a slash, '
                f'got {dict(transforms)}; leave it out for rotation and scale.'
            )
        for name, transform in transforms.items():
            require_transform(f'EquivarianceError.transforms[{name!r}]', transform)
        self.transforms = dict(transforms)
        self.cases: dict[str, list[str]] = {}  # known once evaluated

    @torch.no_grad()
    def update(self, view: AutoencoderView) -> None:
        """Add a batch: one more encoding for each case.

        Raises:
            ValueError: If τ∘E(x) and E(τ∘x) differ in size.
        """
        for name, transform in self.transforms.items():
            for case, params in transform.cases(tuple(view.latents.shape[2:])).items():
                transformed = transform(view.latents, params)
                encoded = view.autoencoder.latents(transform(view.images, params))
                if transformed.shape != encoded.shape:
                    raise ValueError(
                        f'EquivarianceError: {name} {case} turns latents into {tuple(transformed.shape[2:])} cells, '
                        f'but the transformed images encode to {tuple(encoded.shape[2:])}; '
                        'use cases that are exact on the latent grid.'
                    )
                self._add_case(f'{name}/{case}', to_double(transformed), to_double(encoded))

    def _add_case(self, key: str, transformed: Tensor, encoded: Tensor) -> None:
        error = (transformed - encoded).square().sum(dim=(1, 2, 3))
        self.add(f'{key} error', error)
        self.add(f'{key} ratio', error / encoded.square().sum(dim=(1, 2, 3)))
        self.add(f'{key} value', encoded.sum(dim=(2, 3)))
        self.add(f'{key} square', encoded.square().sum(dim=(2, 3)))
        self.add(f'{key} cells', torch.full((len(encoded),), float(encoded[0, 0].numel())))

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return both errors of each transform, then the centred one of each case."""
        # from the sums, which other processes may have contributed
        measured = [key.removesuffix(' error').split('/', 1) for key in sums if key.endswith(' error')]
        self.cases = {name: [case for its, case in measured if its == name] for name in self.transforms}
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
