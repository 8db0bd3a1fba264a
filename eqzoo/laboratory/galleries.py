"""Tables of pictures: rows of autoencoders, columns of images, angles or scales."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from eqzoo.images import to_uint8
from eqzoo.laboratory.colours import SharedBasis
from eqzoo.laboratory.examination import Examination
from eqzoo.report.page import Embedded, embed

_PIXELATED = 64  # up to so many pixels a side, enlarged ones are shown as squares
_NOT_CUT = 0.995  # the part of all errors that are still within the range of colours once amplified
_UNTRANSFORMED = {'turn': '0°', 'scale': '× 1'}


class Tile(NamedTuple):
    """A picture, what is said below it, and its side over that of its place."""

    picture: Embedded
    caption: str = ''
    share: float = 1.0

    @property
    def is_pixelated(self) -> bool:
        """Whether its pixels are to be seen as squares."""
        return max(self.picture.width, self.picture.height) <= _PIXELATED


class GalleryRow(NamedTuple):
    """A label, what is below it in small print, and as many tiles as there are columns."""

    label: str
    what: str
    tiles: list[Tile]


class Gallery(NamedTuple):
    """Pictures in rows and columns, with the columns' heads."""

    title: str
    columns: list[str]
    rows: list[GalleryRow]

    @property
    def is_large(self) -> bool:
        """Whether there is more to see in full size."""
        return max(tile.picture.width for row in self.rows for tile in row.tiles) > 2 * _PIXELATED


def heads(transform: str, cases: Sequence[str]) -> list[str]:
    """Return the columns' heads of a transform's cases, the untransformed first.

    Example:
        >>> heads('turn', ['5', '90']), heads('scale', ['0.5'])
        (['0°', '5°', '90°'], ['× 1', '× 0.5'])
    """
    named = [f'{case}°' if transform == 'turn' else f'× {float(case):.3g}' for case in cases]
    return [_UNTRANSFORMED[transform], *named]


def amplification(errors: Tensor) -> int:
    """Return the power of two, at most 64, by which `errors` in [0, 1] nearly all stay in that range.

    Example:
        >>> amplification(torch.tensor([0.0, 0.1])), amplification(torch.tensor([0.0]))
        (8, 64)
    """
    # torch's quantile takes 16 million values only
    largest = errors.flatten().sort().values[math.ceil(_NOT_CUT * errors.numel()) - 1].item()
    return 2 ** min(6, max(0, math.floor(-math.log2(largest)))) if largest > 0 else 64


def reconstructions(names: Sequence[str], images: Tensor, found: Mapping[str, Examination]) -> tuple[Gallery, int]:
    """Return `images` (B, 3, H, W) above each D(E(x)) and its error, and by what errors are amplified."""
    errors = {name: (each.reconstructions.clamp(-1, 1) - images).abs() / 2 for name, each in found.items()}
    factor = amplification(torch.cat([each.flatten() for each in errors.values()]))
    rows = [_row('x', 'the image', names, images)]
    for name, each in found.items():
        rows.append(_row(name, 'D(E(x))', names, each.reconstructions, [f'{value:.2f} dB' for value in each.psnr]))
        rows.append(_row(name, f'its error × {factor}', names, (errors[name] * factor).clamp(0, 1) * 2 - 1))
    return Gallery('Reconstructions', list(names), rows), factor


def under(transform: str, title: str, number: int, image: Tensor, found: Mapping[str, Examination]) -> Gallery:
    """Return τ∘x of the image of that number, `image` (3, H, W), above each D(τ∘E(x)), a column a case."""
    cases = next(iter(found.values())).transformed[transform]
    columns = heads(transform, list(cases))
    targets = [image, *(case.target[number] for case in cases.values())]
    rows = [_row('τx', 'the image', columns, targets)]
    for name, each in found.items():
        own = each.transformed[transform].values()
        decoded = [each.reconstructions[number], *(case.decoded[number] for case in own)]
        close = [each.psnr[number], *(case.psnr[number] for case in own)]
        rows.append(_row(name, 'D(τE(x))', columns, decoded, [f'{value:.2f} dB' for value in close]))
    return Gallery(title, columns, rows)


def latent_colours(
    names: Sequence[str], images: Tensor, found: Mapping[str, Examination], bases: Mapping[str, SharedBasis]
) -> Gallery:
    """Return `images` (B, 3, H, W) above each autoencoder's latents as colours."""
    rows = [_row('x', 'the image', names, images)]
    for name, each in found.items():
        rows.append(_row(name, 'E(x)', names, bases[name].basis.colours(each.latents[: len(images)])))
    return Gallery('Latents as colours', list(names), rows)


def latent_colours_under(
    transform: str, title: str, number: int, found: Mapping[str, Examination], bases: Mapping[str, SharedBasis]
) -> Gallery:
    """Return E(τ∘x) above τ∘E(x) of the image of that number, as colours, a column a case."""
    columns = heads(transform, list(next(iter(found.values())).transformed[transform]))
    rows = []
    for name, each in found.items():
        own = each.transformed[transform].values()
        start = each.latents[number]
        for what, latents in (
            ('E(τx)', [start, *(case.encoded[number] for case in own)]),
            ('τE(x)', [start, *(case.latents[number] for case in own)]),
        ):
            colours = [bases[name].basis.colours(latent[None])[0] for latent in latents]
            rows.append(_row(name, what, columns, colours))
    return Gallery(title, columns, rows)


def _row(
    label: str, what: str, columns: Sequence[str], images: Sequence[Tensor] | Tensor, captions: Sequence[str] = ()
) -> GalleryRow:
    """Return images (3, H, W) in [-1, 1] as a row; the widest one fills its tile."""
    widest = max(image.shape[-1] for image in images)
    captions = captions or [''] * len(columns)
    return GalleryRow(
        label,
        what,
        [
            Tile(embed(f'{label}, {what}: {column}', _picture(image)), caption, image.shape[-1] / widest)
            for column, image, caption in zip(columns, images, captions[: len(columns)], strict=True)
        ],
    )


def _picture(image: Tensor) -> Image.Image:
    return Image.fromarray(to_uint8(image.float()).permute(1, 2, 0).contiguous().cpu().numpy())
