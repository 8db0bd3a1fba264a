"""The equivariance error: how far τ∘E(x) is from E(τ∘x), and D(τ∘E(x)) from τ∘x."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from eqzoo.evaluators.base import Evaluator
from eqzoo.evaluators.equivariance_measures import Measure, curves_of, mean_measure, psnr, ratio_measure
from eqzoo.evaluators.equivariance_ratio import error_terms
from eqzoo.evaluators.view import AutoencoderView
from eqzoo.registry import EVALUATORS, EquivarianceTransform
from eqzoo.transforms import IsotropicScale, Rotate
from eqzoo.transforms.base import require_transform, valid_area

_RATIOS = ('eq_err', 'eq_rec_err')
_KINDS = ('eq_err', 'eq_err_paper', 'eq_rec', 'eq_rec_err')


@EVALUATORS.register_module()
class EquivarianceError(Evaluator):
    """Measures for each named transform, averaged over its cases; `curves` over what cases are numbers of.

    With E the posterior mean in generator units, a = τ∘E(x), b = E(τ∘x):

    `eq_err/<name>` = Σ ‖a − b‖² / Σ ‖b − μ‖², sums over the images, μ the mean of b per
    channel over the set. 0 is perfect, 1 as bad as predicting the mean, 2 unrelated; it does
    not change with a factor on the latents or an offset on a channel.

    `eq_err/<name>_std` is its standard error, images being the units (a 95 % interval is ± 1.96
    of it, from some 30 images on).

    `eq_err_paper/<name>` = mean over images of ‖a − b‖² / ‖b‖² (EQ-VAE, App. C.3). An offset
    on the latents lowers it without any gain in equivariance, and constant latents have 0;
    it is not finite if an image's latents are all 0.

    With `image_side`, `eq_rec/<name>` is the PSNR in dB of D(τ∘E(x)) from τ∘x, 8-bit, per image,
    which is what EQ-VAE trains; `eq_rec_err/<name>` and its `_std` are the ratio above of these
    images. Both hold the autoencoder's own error too: compare with `psnr`.

    `eq_err/<name>/<case>` and its like are the same for each case alone. Latents that do not
    vary at all have no error: the value is NaN.

    Args:
        transforms: By name. Default: rotation by the three quarter turns, and scale by 0.25,
            0.5 and 0.75 with bicubic, antialiased resampling of images and latents, which
            has the lowest floor: about 0.006 for a perfectly equivariant encoder.
        mask: Whether to leave out what transforms fill in at the border. It changes nothing for
            exact ones and for scales. Without it all names have `_unmasked` in them.
        image_side: Whether to decode as well: one decoding more for each case.

    Raises:
        ValueError: If there is no transform, or a name that is empty or has a slash.
        TypeError: If a value is no transform.
    """

    def __init__(
        self,
        transforms: Mapping[str, EquivarianceTransform] | None = None,
        *,
        mask: bool = True,
        image_side: bool = False,
    ) -> None:
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
        self.mask, self.image_side = mask, image_side
        self.cases: dict[str, list[str]] = {}  # known once evaluated

    @torch.no_grad()
    def update(self, view: AutoencoderView) -> None:
        """Add a batch: one more encoding for each case, with `image_side` one more decoding.

        Raises:
            ValueError: If τ∘E(x) and E(τ∘x) differ in size, or the mask leaves nothing.
        """
        for name, transform in self.transforms.items():
            cases = transform.cases(tuple(view.latents.shape[2:]))
            terms, decoded_terms, psnrs = [], [], []
            for case, params in cases.items():
                where = f'EquivarianceError: {name} {case}'
                images, latents = (transform(x, params) for x in (view.images, view.latents))
                encoded = view.autoencoder.latents(images)
                _check_sizes(where, latents, encoded)
                mask = self._mask(where, transform, view.latents, params)
                terms.append(error_terms(latents, encoded, mask))
                if self.image_side:
                    decoded = view.autoencoder.decode(view.autoencoder.normalization.denormalize(latents))
                    mask = self._mask(where, transform, view.images, params)
                    decoded_terms.append(error_terms(decoded, images, mask))
                    psnrs.append(psnr(decoded, images, mask))
            self._add_ratio(f'eq_err/{name}', list(cases), terms)
            self._add_mean(f'eq_err_paper/{name}', [each[:, 0] / each[:, 1] for each in terms])
            if self.image_side:
                self._add_ratio(f'eq_rec_err/{name}', list(cases), decoded_terms)
                self._add_mean(f'eq_rec/{name}', psnrs)

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return all measures of each transform, then those of each case alone; set `curves`."""
        # from the sums, which other processes may have contributed
        known = [key.split('/') for key in sums if key.startswith('eq_err/') and key.count('/') == 2]
        self.cases = {name: [case for _, its, case in known if its == name] for name in self.transforms}
        measures = {
            key: self._measure(key, sums)
            for name in self.transforms
            for key in (f'{kind}/{name}' for kind in _KINDS)
            if key in sums
        }
        self.curves = curves_of(measures, self.transforms)
        metrics: dict[str, float] = {}
        for key, measure in measures.items():
            metrics[key] = measure.value
            if key.split('/')[0] in _RATIOS:
                metrics[f'{key}_std'] = measure.std
        for key, measure in measures.items():
            if not key.startswith('eq_err_paper/'):
                metrics |= {f'{key}/{case}': value for case, (value, _) in measure.cases.items()}
        return metrics if self.mask else {_unmasked(key): value for key, value in metrics.items()}

    def card(self) -> dict[str, Any]:
        """Name the transforms and what is compared."""
        return {
            'transforms': {name: repr(transform) for name, transform in self.transforms.items()},
            'cases': self.cases,
            'latent': 'posterior mean in generator units',
            'average': 'over cases, never over transforms',
            'border': 'what transforms fill in is left out' if self.mask else 'everything counts',
            'std': 'standard error by the delta method, images being the units',
        }

    def _mask(self, where: str, transform: EquivarianceTransform, x: Tensor, params: Any) -> Tensor | None:
        size = tuple(x.shape[2:])
        area = valid_area(transform, size, params) if self.mask else None
        if area is not None and not area.any():
            raise ValueError(
                f'{where}: the mask leaves nothing of {size[0]} x {size[1]}; use larger images, smaller angles or '
                'shifts, or mask=False.'
            )
        return area

    def _add_ratio(self, key: str, cases: list[str], terms: list[Tensor]) -> None:
        """Add up each case's terms under `key/case`, and what all cases' have in common under `key`."""
        for case, each in zip(cases, terms, strict=True):
            self.add(f'{key}/{case}', each)
        together = torch.cat(terms, dim=1)
        self.add_total(key, together.T @ together)

    def _add_mean(self, key: str, values: list[Tensor]) -> None:
        """Add up the values (B,) of all cases and their mean, and the squares of these, under `key`."""
        stacked = torch.stack(values, dim=1).double()
        stacked = torch.cat([stacked, stacked.mean(dim=1, keepdim=True)], dim=1)
        self.add(key, torch.stack([stacked, stacked.square()], dim=1))

    def _measure(self, key: str, sums: Mapping[str, Tensor]) -> Measure:
        kind, name = key.split('/')
        cases, count = self.cases[name], sums['count'].item()
        if kind in _RATIOS:
            return ratio_measure({case: sums[f'{key}/{case}'] for case in cases}, sums[key], count)
        return mean_measure(cases, sums[key], count)


def _check_sizes(where: str, transformed: Tensor, encoded: Tensor) -> None:
    if transformed.shape != encoded.shape:
        raise ValueError(
            f'{where} turns latents into {tuple(transformed.shape[2:])} cells, '
            f'but the transformed images encode to {tuple(encoded.shape[2:])}; '
            'use cases that are exact on the latent grid.'
        )


def _unmasked(key: str) -> str:
    kind, slash, rest = key.partition('/')
    return f'{kind}_unmasked{slash}{rest}'
