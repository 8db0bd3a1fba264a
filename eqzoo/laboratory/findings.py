"""All that was found of several autoencoders, as numbers and as curves."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from eqzoo import __version__
from eqzoo.laboratory.cases import Cases
from eqzoo.laboratory.colours import SharedBasis, share_bases
from eqzoo.laboratory.examination import Examination
from eqzoo.laboratory.models import Model
from eqzoo.laboratory.photographs import Squares

_CHARTS = (
    ('eq_err/turn', 'Latents under rotation: τE(x) from E(τx)', 'angle / degrees', 'eq_err'),
    ('eq_rec/turn', 'Images under rotation: D(τE(x)) from τx', 'angle / degrees', 'PSNR / dB'),
    ('eq_err/scale', 'Latents under scaling: τE(x) from E(τx)', 'scale', 'eq_err'),
    ('eq_rec/scale', 'Images under scaling: D(τE(x)) from τx', 'scale', 'PSNR / dB'),
    ('spectrum', 'Spectrum of the latents', 'frequency / Nyquist', 'power'),
)


@dataclass
class Findings:
    """What the page and the file of numbers are made of.

    Args:
        models: One or more.
        images: That were looked at.
        cases: That were looked at.
        found: By the model's name.
    """

    models: list[Model]
    images: Squares
    cases: Cases
    found: dict[str, Examination]

    @cached_property
    def bases(self) -> dict[str, SharedBasis]:
        """The colours of each model's latents."""
        return share_bases({name: each.latents for name, each in self.found.items()})

    @property
    def remarks(self) -> list[str]:
        """What is to be known about the choice of images and cases."""
        remarks = [*self.images.remarks, *self.cases.remarks]
        if not all('spectrum' in each.curves for each in self.found.values()):
            remarks.append('No spectrum of latents of fewer than 4 cells a side.')
        return remarks

    def curves(self) -> list[dict[str, Any]]:
        """Return what was measured over angle, scale and frequency, a series a model, as `draw_chart` takes it."""
        curves = []
        for key, title, x, y in _CHARTS:
            series = [
                dict(label=name, x=[*each.curves[key][0]], y=[*each.curves[key][1]], low=None, high=None)
                for name, each in self.found.items()
                if key in each.curves
            ]
            if series:
                curves.append(dict(title=title, x=x, y=y, log=key == 'spectrum', series=series))
        return curves

    def summary(self) -> dict[str, Any]:
        """Return all numbers, in JSON's types."""
        names, sizes, cuts = self.images.names, self.images.sizes, self.images.cuts
        return {
            'images': [
                dict(name=name, width=width, height=height, cut=cut)
                for name, (width, height), cut in zip(names, sizes, cuts, strict=True)
            ],
            'size': self.images.pixels.shape[-1],
            'models': {model.name: self._of(model) for model in self.models},
            'curves': self.curves(),
            'remarks': self.remarks,
            'eqzoo': __version__,
            'torch': torch.__version__,
        }

    def _of(self, model: Model) -> dict[str, Any]:
        found, basis = self.found[model.name], self.bases[model.name]
        return {
            'source': model.source,
            'type': type(model.autoencoder).__name__,
            'num_parameters': model.num_parameters,
            'downsample_factor': model.autoencoder.downsample_factor,
            'latent_channels': model.autoencoder.latent_channels,
            'latent_size': list(found.latents.shape[1:]),
            'metrics': found.metrics,
            'cases': found.cases,
            'psnr': found.psnr,
            'colours': dict(shared_by=list(basis.group), aligned_to=basis.reference, agreement=basis.agreement),
            'card': found.card,
        }


def told_basis(name: str, bases: Mapping[str, SharedBasis]) -> str:
    """Say in a sentence what the colours of a model's latents have to do with the others'."""
    basis = bases[name]
    others = [other for other in basis.group if other != name]
    if len(bases) == 1:
        return 'The three colours are its first three principal components.'
    said = (
        f'One basis with {", ".join(others)}: the same latent has the same colour.' if others else 'A basis of its own'
    )
    if basis.reference is None:
        return said if others else f'{said}, to which the others are turned.'
    turned = (
        f'turned to agree with {basis.reference}: mean correlation {basis.agreement:.2f} (1 would be the same picture).'
    )
    return f'{said} It is {turned}' if others else f'{said}, {turned}'
