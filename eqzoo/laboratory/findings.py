"""Findings of the laboratory: the examinations of several autoencoders, as curves and as JSON."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from eqzoo import __version__
from eqzoo.laboratory.colours import SharedBasis, share_bases
from eqzoo.laboratory.examination import Cases, Examination, Model
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
    """The data of the page and of the JSON file.

    Args:
        models: One or more.
        images: The images that were examined.
        cases: The transforms.
        found: The examinations, by the model's name.
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
        """Remarks on the choice of images and transforms."""
        remarks = [*self.images.remarks, *self.cases.remarks]
        if not all('spectrum' in each.curves for each in self.found.values()):
            remarks.append('Latents of fewer than 4 cells a side have no spectrum.')
        if not all('viv' in each.metrics for each in self.found.values()):
            remarks.append('Fewer than 4 images have no viv.')
        return remarks

    def curves(self) -> list[dict[str, Any]]:
        """Return the measures over angle, scale and frequency, a series for each model, as `draw_chart` takes them."""
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
            'models': {model.name: self._summary_of(model) for model in self.models},
            'curves': self.curves(),
            'remarks': self.remarks,
            'eqzoo': __version__,
            'torch': torch.__version__,
        }

    def _summary_of(self, model: Model) -> dict[str, Any]:
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
