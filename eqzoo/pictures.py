"""Pictures of what an autoencoder does to images, and of what its latents look like."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from eqzoo.registry import EquivarianceTransform
from eqzoo.transforms import IsotropicScale, Rotate

_GAP = 2
_LABEL_WIDTH = 150  # at least
_LABEL_INDENT = 6
_BACKGROUND = 255


class Row(NamedTuple):
    """A row of a grid: its label, its images (B, 3, H, W) in [-1, 1], and whether they fill their tiles."""

    label: str
    images: Tensor
    fills: bool = False


def default_cases(grid: tuple[int, int]) -> dict[str, tuple[EquivarianceTransform, Any]]:
    """Return the transforms that pictures show: a quarter turn and half the size."""
    rotate, scale = Rotate(), IsotropicScale(interpolation='bicubic', antialias=True)
    return {'90°': (rotate, rotate.cases(grid)['90']), '× 0.5': (scale, scale.cases(grid)['0.5'])}


@torch.no_grad()
def autoencoder_rows(
    autoencoder: nn.Module, images: Tensor, cases: Mapping[str, tuple[EquivarianceTransform, Any]] | None = None
) -> list[Row]:
    """Return input, reconstruction, τ∘x beside D(τ∘E(x)) for each case, and latent components.

    Args:
        autoencoder: In evaluation mode.
        images: x (B, 3, H, W) in [-1, 1].
        cases: τ and its parameters, by label; `default_cases` if None.
    """
    cases = default_cases(autoencoder.grid(*images.shape[-2:])) if cases is None else cases
    latents = autoencoder.encode(images).mean
    rows = [Row('x', images), Row('D(E(x))', autoencoder.decode(latents))]
    for label, (transform, params) in cases.items():
        rows.append(Row(f'τx  {label}', transform(images, params)))
        rows.append(Row(f'D(τE(x))  {label}', autoencoder.decode(transform(latents, params))))
    return [*rows, Row('PCA of E(x)', principal_components(latents), fills=True)]


class ColourBasis(NamedTuple):
    """Directions in a latent space, each shown as a colour: red, green, blue.

    Args:
        mean: (C,), what is subtracted first.
        directions: (K, C), three or fewer.
        low: (K,), the component that has no brightness.
        high: (K,), the one that has all of it.
    """

    mean: Tensor
    directions: Tensor
    low: Tensor
    high: Tensor

    def components(self, latents: Tensor) -> Tensor:
        """Return each cell's components (B * h * w, K) of `latents` (B, C, h, w)."""
        return (cells_of(latents) - self.mean) @ self.directions.T

    def colours(self, latents: Tensor) -> Tensor:
        """Return `latents` (B, C, h, w) as colours (B, 3, h, w) in [-1, 1]."""
        components = self.components(latents)
        colours = ((components - self.low) / (self.high - self.low).clamp_min(1e-8)).clamp(0, 1) * 2 - 1
        colours = F.pad(colours, (0, 3 - colours.shape[1]), value=-1.0)  # fewer than three channels: black
        return colours.reshape(len(latents), *latents.shape[2:], 3).permute(0, 3, 1, 2)

    def spread(self, *latents: Tensor) -> 'ColourBasis':
        """Return this basis with each colour spread between the 1st and 99th percentile of all `latents`."""
        components = torch.cat([self.components(each) for each in latents])
        return self._replace(low=components.quantile(0.01, dim=0), high=components.quantile(0.99, dim=0))


def fit_basis(*latents: Tensor) -> ColourBasis:
    """Return the first three principal components of all positions of `latents`, each (B, C, h, w).

    Each component has its largest loading positive, and is spread between its 1st and 99th percentile.
    """
    cells = [cells_of(each) for each in latents]
    points = torch.cat(cells) if len(cells) > 1 else cells[0]  # a copy has other strides, and rounds otherwise
    mean = points.mean(dim=0)
    _, _, directions = torch.linalg.svd(points - mean, full_matrices=False)
    directions = directions[:3]
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    ends = torch.zeros(2, len(directions), device=mean.device)
    return ColourBasis(mean, directions * largest.sign(), *ends).spread(*latents)


def principal_components(latents: Tensor) -> Tensor:
    """Return the first three principal components of `latents` (B, C, h, w) as colours in [-1, 1].

    The basis is that of all positions of the batch: see `fit_basis`.
    """
    return fit_basis(latents).colours(latents)


def cells_of(latents: Tensor) -> Tensor:
    """Return the cells (B * h * w, C) of `latents` (B, C, h, w), in float32."""
    return latents.float().permute(0, 2, 3, 1).reshape(-1, latents.shape[1])


def sample_rows(
    read: Callable[[Sequence[int]], Tensor], labels: Sequence[int], *, columns: int = 8, rows: int = 8
) -> list[Row]:
    """Return samples as rows of a grid: a class a row, or in their order where classes have too few each.

    Args:
        read: Numbers of samples to their images (B, 3, H, W), uint8.
        labels: The classes of the samples 0, 1, …
        columns: At most so many samples a row.
        rows: At most so many.
    """
    members: dict[int, list[int]] = {}
    for number, label in enumerate(labels):
        members.setdefault(label, []).append(number)
    largest = sorted(members, key=lambda label: (-len(members[label][:columns]), label))[:rows]
    width = min(columns, *(len(members[label]) for label in largest)) if largest else 0
    if 2 * width > columns:
        return [Row(f'class {label}', _unit(read(members[label][:width]))) for label in sorted(largest)]
    columns = min(columns, len(labels))
    starts = range(0, min(len(labels) - columns + 1, rows * columns), columns)
    return [Row('', _unit(read(range(start, start + columns)))) for start in starts]


def draw_grid(rows: Sequence[Row], tile: int | None = None) -> Image.Image:
    """Draw labelled rows of images; smaller images are centred on their tile, unless they fill it.

    Args:
        rows: With equal numbers of images; the first row's images fill their tiles.
        tile: Pixels of a tile's side; by default the first row's, at least 96.
    """
    size = rows[0].images.shape[-1]
    tile = tile or max(size, 96)
    columns = len(rows[0].images)
    step = tile + _GAP
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / 'DejaVuSans.ttf', 12)  # has τ
    indent = max(_LABEL_WIDTH, *(round(font.getlength(row.label)) + 2 * _LABEL_INDENT for row in rows))
    canvas = Image.new('RGB', (indent + columns * step, len(rows) * step), (_BACKGROUND,) * 3)
    pen = ImageDraw.Draw(canvas)
    for number, row in enumerate(rows):
        pen.text((_LABEL_INDENT, number * step + tile // 2 - 6), row.label, fill=(0, 0, 0), font=font)
        for column, image in enumerate(_to_uint8(row.images)):
            picture = Image.fromarray(image)
            width, height = (tile, tile) if row.fills else (round(side * tile / size) for side in picture.size)
            picture = picture.resize((width, height), Image.Resampling.NEAREST)
            left = indent + column * step + (tile - width) // 2
            canvas.paste(picture, (left, number * step + (tile - height) // 2))
    return canvas


def _unit(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1


def _to_uint8(images: Tensor) -> np.ndarray:
    values = images.detach().float().mul(127.5).add(128).clamp(0, 255).byte()
    return values.permute(0, 2, 3, 1).cpu().numpy()
