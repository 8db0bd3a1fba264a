"""All that was found of several autoencoders, as numbers and as curves."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch

from eqzoo import __version__
from eqzoo.images import to_float
from eqzoo.laboratory.colours import SharedBasis, share_bases
from eqzoo.laboratory.examination import Cases, Examination, Model
from eqzoo.laboratory.galleries import latent_colours, latent_colours_under, reconstructions, under
from eqzoo.laboratory.photographs import Squares
from eqzoo.report.charts import draw_chart
from eqzoo.report.comparison import Cell, compare_results
from eqzoo.report.page import write_page
from eqzoo.report.results import Result

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


# What the table shows of all that was measured, and in a newcomer's words
_METRICS = {
    'psnr': 'how close D(E(x)) is to x, in dB: 3 dB more are half the squared error',
    'ssim': 'the same by local structure; 1 is the image itself',
    'eq_err/rotation': 'how far τE(x) is from E(τx), quarter turns: 0 is equivariant, 1 as bad as their mean',
    'eq_err/turn': 'the same, by the angles of the curves',
    'eq_err/scale': 'the same, by the scales of the curves',
    'eq_rec/rotation': 'how close D(τE(x)) is to τx, in dB, quarter turns; about psnr at most',
    'eq_rec/scale': 'the same, by the scales of the curves',
    'latent_std': 'deviation in generator units, in which generators expect about 1',
    'spectrum/slope': 'how fast power falls with frequency: 0 is noise, the further below, the smoother',
}


class _Line(NamedTuple):
    label: str
    better: str
    what: str
    cells: list[Cell]


def write_laboratory(path: str | Path, findings: Findings) -> None:
    """Write findings as one self-contained HTML page."""
    shown = len(next(iter(findings.found.values())).reconstructions)
    names = findings.images.names[:shown]
    images = to_float(findings.images.pixels[:shown])
    found, bases = findings.found, findings.bases
    gallery, amplified = reconstructions(names, images, found)
    numbered = list(enumerate(names))
    values = dict(
        title='Latent-space laboratory: ' + ', '.join(found),
        models=[*found],
        lead=_lead(findings),
        remarks=findings.remarks,
        lines=[*_facts(findings), *_metrics(findings)],
        reconstructions=gallery,
        amplified=amplified,
        turned=[under('turn', name, number, images[number], found) for number, name in numbered],
        scaled=[under('scale', name, number, images[number], found) for number, name in numbered],
        latents=latent_colours(names, images, found, bases),
        latents_turned=[latent_colours_under('turn', name, number, found, bases) for number, name in numbered],
        colours={name: told_basis(name, bases) for name in found},
        charts=[draw_chart(curve, number) for number, curve in enumerate(findings.curves())],
        images=_images(findings),
        card=_card(findings),
        version=__version__,
    )
    write_page(path, 'inspect.html', values)


def _lead(findings: Findings) -> str:
    side, count = findings.images.pixels.shape[-1], len(findings.images.names)
    return f'{_count(len(findings.models), "autoencoder")} · {_count(count, "image")} of {side} × {side} pixels'


def _facts(findings: Findings) -> list[_Line]:
    """Return what each autoencoder is, whatever the images."""
    side = findings.images.pixels.shape[-1]
    facts: dict[tuple[str, str], list[str]] = {
        ('network', ''): [],
        ('parameters', 'numbers that it has learned, of encoder and decoder'): [],
        ('factor f', 'pixels of the image a side of a latent cell'): [],
        ('channels C', 'numbers in a latent cell'): [],
        ('latent', f'C × h × w of an image of {side} × {side}'): [],
        ('compression', 'numbers of the image for each one of the latent'): [],
    }
    for model in findings.models:
        autoencoder = model.autoencoder
        channels, height, width = findings.found[model.name].latents.shape[1:]
        own = (
            type(autoencoder).__name__,
            f'{model.num_parameters:,}',
            f'{autoencoder.downsample_factor}',
            f'{channels}',
            f'{channels} × {height} × {width}',
            f'{3 * side * side / (channels * height * width):.3g}',
        )
        for cells, text in zip(facts.values(), own, strict=True):
            cells.append(text)
    return [_Line(label, '', what, [Cell(None, text) for text in cells]) for (label, what), cells in facts.items()]


def _metrics(findings: Findings) -> list[_Line]:
    """Return the measures of `_METRICS`, the best of each marked."""
    results = {
        model.name: Result(
            Path(model.source),
            {name: value for name, value in findings.found[model.name].metrics.items() if name in _METRICS},
            {},
            [],
            {'evaluators': {}},  # all were measured in one run, alike
        )
        for model in findings.models
    }
    rows = {row.metric: row for row in compare_results(results).rows}
    return [_Line(name, rows[name].better, what, rows[name].cells) for name, what in _METRICS.items() if name in rows]


def _images(findings: Findings) -> list[dict[str, Any]]:
    images = findings.images
    return [
        dict(
            name=name,
            size=f'{width} × {height}',
            cut=cut,
            psnr=[f'{found.psnr[number]:.2f}' for found in findings.found.values()],
        )
        for number, (name, (width, height), cut) in enumerate(zip(images.names, images.sizes, images.cuts, strict=True))
    ]


def _card(findings: Findings) -> dict[str, Any]:
    evaluators = dict(next(iter(findings.found.values())).card)
    return {**{model.name: model.source for model in findings.models}, **evaluators}


def _count(number: int, what: str) -> str:
    return f'{number} {what}{"" if number == 1 else "s"}'
