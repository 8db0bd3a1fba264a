"""The laboratory's page: findings as tables, charts and galleries of pictures."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import stdev
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eqzoo import __version__
from eqzoo.images import to_float
from eqzoo.laboratory.colours import SharedBasis
from eqzoo.laboratory.examination import Examination
from eqzoo.laboratory.findings import Findings
from eqzoo.pictures import to_pil
from eqzoo.report.charts import draw_chart
from eqzoo.report.comparison import Cell
from eqzoo.report.meanings import meaning
from eqzoo.report.page import EmbeddedPicture, embed, write_page
from eqzoo.report.table import better, format_number
from eqzoo.text import counted

# The rows of the table; '' stands for the metric's usual explanation.
_METRICS = {
    'psnr': '',
    'ssim': '',
    'eq_err/rotation': f'{meaning("eq_err")}; of quarter turns',
    'eq_err/turn': 'the same, at the angles of the curves',
    'eq_err/scale': 'the same, at the scales of the curves',
    'eq_rec/rotation': f'{meaning("eq_rec")}; of quarter turns',
    'eq_rec/scale': 'the same, at the scales of the curves',
    'latent_std': '',
    'spectrum/slope': '',
    'viv': f'{meaning("viv")}; 1.57 is noise',
    'sec/0.25': 'share of the power of latents above a quarter of the highest frequency; about 0.85 is noise',
    'lds': '',
    'effective_rank': f'{meaning("effective_rank")}, at most C',
}
_MAX_PIXELATED = 64  # pixels a side; enlarged pictures up to this size are shown as squares
_NOT_CLIPPED = 0.995  # share of all errors that stay within the range of colours when amplified
_UNTRANSFORMED = {'turn': '0°', 'scale': '× 1'}


class Tile(NamedTuple):
    """A picture, its caption, and its side as a share of its place."""

    picture: EmbeddedPicture
    caption: str = ''
    share: float = 1.0

    @property
    def is_pixelated(self) -> bool:
        """Whether its pixels are shown as squares."""
        return max(self.picture.width, self.picture.height) <= _MAX_PIXELATED


class GalleryRow(NamedTuple):
    """A label, the content in small print, and one tile for each column."""

    label: str
    content: str
    tiles: list[Tile]


class Gallery(NamedTuple):
    """Pictures in rows and columns, with the columns' heads."""

    title: str
    columns: list[str]
    rows: list[GalleryRow]

    @property
    def is_large(self) -> bool:
        """Whether the full size shows more."""
        return max(tile.picture.width for row in self.rows for tile in row.tiles) > 2 * _MAX_PIXELATED


class _Line(NamedTuple):
    label: str
    better: str
    meaning: str
    cells: list[Cell]


def write_laboratory(path: str | Path, findings: Findings) -> None:
    """Write findings as one self-contained HTML page."""
    shown = len(next(iter(findings.found.values())).reconstructions)
    names = findings.images.names[:shown]
    images = to_float(findings.images.pixels[:shown])
    found, bases = findings.found, findings.bases
    gallery, amplified = reconstruction_gallery(names, images, found)
    numbered = list(enumerate(names))
    values = dict(
        title='Latent-space laboratory: ' + ', '.join(found),
        models=[*found],
        lead=_lead(findings),
        remarks=findings.remarks,
        lines=[*_facts(findings), *_metrics(findings)],
        reconstructions=gallery,
        amplified=amplified,
        turned=[transformed_gallery('turn', name, number, images[number], found) for number, name in numbered],
        scaled=[transformed_gallery('scale', name, number, images[number], found) for number, name in numbered],
        latents=colour_gallery(names, images, found, bases),
        latents_turned=[transformed_colour_gallery('turn', name, number, found, bases) for number, name in numbered],
        colours={name: describe_basis(name, bases) for name in found},
        charts=[draw_chart(curve, number) for number, curve in enumerate(findings.curves())],
        images=_images(findings),
        card=_card(findings),
        version=__version__,
    )
    write_page(path, 'laboratory.html', values)


def _lead(findings: Findings) -> str:
    side, count = findings.images.pixels.shape[-1], len(findings.images.names)
    return f'{counted(len(findings.models), "autoencoder")} · {counted(count, "image")} of {side} × {side} pixels'


def _facts(findings: Findings) -> list[_Line]:
    """Return the properties of each autoencoder that do not depend on the images."""
    side = findings.images.pixels.shape[-1]
    facts: dict[tuple[str, str], list[str]] = {
        ('network', ''): [],
        ('parameters', 'learned numbers of encoder and decoder'): [],
        ('factor f', 'pixels a side of the image for each latent cell'): [],
        ('channels C', 'numbers in a latent cell'): [],
        ('latent', f'C × h × w of an image of {side} × {side}'): [],
        ('compression', 'numbers of the image for each number of the latent'): [],
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
    return [
        _Line(label, '', meaning, [Cell(None, text) for text in cells]) for (label, meaning), cells in facts.items()
    ]


def _metrics(findings: Findings) -> list[_Line]:
    """Return the metrics of `_METRICS` that any autoencoder has, with standard errors; none is marked as the best."""
    found = findings.found.values()
    return [
        _Line(name, better(name), words or meaning(name), [_cell(name, each) for each in found])
        for name, words in _METRICS.items()
        if any(name in each.metrics for each in found)
    ]


def _cell(name: str, found: Examination) -> Cell:
    if name not in found.metrics:
        return Cell(None, '–')
    value = found.metrics[name]
    known = {**found.cases, **found.metrics}  # errors of metrics with a '/' are cases
    error = _standard_error(found.psnr) if name == 'psnr' else known.get(f'{name}_std')
    spread = '' if error is None or value is None else f' ±\u00a0{format_number(error)}'
    return Cell(value, f'{format_number(value)}{spread}')


def _standard_error(values: Sequence[float]) -> float | None:
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return error if math.isfinite(error) else None


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


def describe_basis(name: str, bases: Mapping[str, SharedBasis]) -> str:
    """Return a sentence on the colours of a model's latents and their relation to the others' colours."""
    basis = bases[name]
    others = [other for other in basis.group if other != name]
    if len(bases) == 1:
        return 'The three colours are its first three principal components.'
    shared = (
        f'One basis with {", ".join(others)}: the same latent has the same colour.' if others else 'A basis of its own'
    )
    if basis.reference is None:
        return shared if others else f'{shared}, to which the others are rotated.'
    rotated = (
        f'rotated to agree with {basis.reference}: mean correlation {basis.agreement:.2f} (1 would be the same '
        'picture).'
    )
    return f'{shared} It is {rotated}' if others else f'{shared}, {rotated}'


def column_heads(transform: str, cases: Sequence[str]) -> list[str]:
    """Return the columns' heads for a transform's cases, the untransformed first.

    Example:
        >>> column_heads('turn', ['5', '90']), column_heads('scale', ['0.5'])
        (['0°', '5°', '90°'], ['× 1', '× 0.5'])
    """
    heads = [f'{case}°' if transform == 'turn' else f'× {float(case):.3g}' for case in cases]
    return [_UNTRANSFORMED[transform], *heads]


def amplification(errors: Tensor) -> int:
    """Return the power of two, at most 64, that keeps nearly all of `errors` in [0, 1] in that range.

    Example:
        >>> amplification(torch.tensor([0.0, 0.1])), amplification(torch.tensor([0.0]))
        (8, 64)
    """
    # torch.quantile takes at most 16 million values
    largest = errors.flatten().sort().values[math.ceil(_NOT_CLIPPED * errors.numel()) - 1].item()
    return 2 ** min(6, max(0, math.floor(-math.log2(largest)))) if largest > 0 else 64


def reconstruction_gallery(
    names: Sequence[str], images: Tensor, found: Mapping[str, Examination]
) -> tuple[Gallery, int]:
    """Return `images` (B, 3, H, W) above each D(E(x)) and its error, and the amplification of errors."""
    errors = {name: (each.reconstructions.clamp(-1, 1) - images).abs() / 2 for name, each in found.items()}
    factor = amplification(torch.cat([each.flatten() for each in errors.values()]))
    rows = [_row('x', 'the image', names, images)]
    for name, each in found.items():
        rows.append(_row(name, 'D(E(x))', names, each.reconstructions, [f'{value:.2f} dB' for value in each.psnr]))
        rows.append(_row(name, f'its error × {factor}', names, (errors[name] * factor).clamp(0, 1) * 2 - 1))
    return Gallery('Reconstructions', list(names), rows), factor


def transformed_gallery(
    transform: str, title: str, number: int, image: Tensor, found: Mapping[str, Examination]
) -> Gallery:
    """Return τ∘x of the image with that number, `image` (3, H, W), above each D(τ∘E(x)); one column for each case."""
    cases = next(iter(found.values())).transformed[transform]
    columns = column_heads(transform, list(cases))
    targets = [image, *(case.target[number] for case in cases.values())]
    rows = [_row('τx', 'the image', columns, targets)]
    for name, each in found.items():
        own = each.transformed[transform].values()
        decoded = [each.reconstructions[number], *(case.decoded[number] for case in own)]
        close = [each.psnr[number], *(case.psnr[number] for case in own)]
        rows.append(_row(name, 'D(τE(x))', columns, decoded, [f'{value:.2f} dB' for value in close]))
    return Gallery(title, columns, rows)


def colour_gallery(
    names: Sequence[str], images: Tensor, found: Mapping[str, Examination], bases: Mapping[str, SharedBasis]
) -> Gallery:
    """Return `images` (B, 3, H, W) above each autoencoder's latents as colours."""
    rows = [_row('x', 'the image', names, images)]
    for name, each in found.items():
        rows.append(_row(name, 'E(x)', names, bases[name].basis.colours(each.latents[: len(images)])))
    return Gallery('Latents as colours', list(names), rows)


def transformed_colour_gallery(
    transform: str, title: str, number: int, found: Mapping[str, Examination], bases: Mapping[str, SharedBasis]
) -> Gallery:
    """Return E(τ∘x) above τ∘E(x) of the image with that number, as colours; one column for each case."""
    columns = column_heads(transform, list(next(iter(found.values())).transformed[transform]))
    rows = []
    for name, each in found.items():
        own = each.transformed[transform].values()
        start = each.latents[number]
        for content, latents in (
            ('E(τx)', [start, *(case.encoded[number] for case in own)]),
            ('τE(x)', [start, *(case.latents[number] for case in own)]),
        ):
            colours = [bases[name].basis.colours(latent[None])[0] for latent in latents]
            rows.append(_row(name, content, columns, colours))
    return Gallery(title, columns, rows)


def _row(
    label: str, content: str, columns: Sequence[str], images: Sequence[Tensor] | Tensor, captions: Sequence[str] = ()
) -> GalleryRow:
    """Return images (3, H, W) in [-1, 1] as a row; the widest image fills its tile."""
    widest = max(image.shape[-1] for image in images)
    captions = captions or [''] * len(columns)
    return GalleryRow(
        label,
        content,
        [
            Tile(embed(f'{label}, {content}: {column}', to_pil(image)), caption, image.shape[-1] / widest)
            for column, image, caption in zip(columns, images, captions[: len(columns)], strict=True)
        ],
    )
