"""Pictures of images, reconstructions, transformed latents and samples, as labelled grids."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from eqzoo.images import to_float, to_uint8
from eqzoo.lazy import LazyModule
from eqzoo.registry import EquivarianceTransform
from eqzoo.transforms import IsotropicScale, Rotate

matplotlib = LazyModule('matplotlib')

_GAP = 2
_MIN_TILE = 96  # pixels a side
_MIN_LABEL_WIDTH = 150
_LABEL_INDENT = 6
_MAX_ROWS = 8  # of samples


class PictureRow(NamedTuple):
    """A row of a grid.

    Args:
        label: Written to the left of the images.
        images: (B, 3, H, W) in [-1, 1].
        fills: Whether the images are enlarged to the size of their tiles.
    """

    label: str
    images: Tensor
    fills: bool = False


def default_cases(grid: tuple[int, int]) -> dict[str, tuple[EquivarianceTransform, Any]]:
    """Return the transforms that pictures show, with their parameters: a quarter turn and half the size."""
    rotate, scale = Rotate(), IsotropicScale(interpolation='bicubic', antialias=True)
    return {'90°': (rotate, rotate.cases(grid)['90']), '× 0.5': (scale, scale.cases(grid)['0.5'])}


@torch.no_grad()
def autoencoder_rows(autoencoder: nn.Module, images: Tensor) -> list[PictureRow]:
    """Return rows of x, D(E(x)), for each of `default_cases` τ∘x and D(τ∘E(x)), and the latents' components.

    Args:
        autoencoder: In evaluation mode.
        images: x (B, 3, H, W) in [-1, 1].
    """
    latents = autoencoder.encode(images).mean
    rows = [PictureRow('x', images), PictureRow('D(E(x))', autoencoder.decode(latents))]
    for label, (transform, params) in default_cases(autoencoder.grid(*images.shape[-2:])).items():
        rows.append(PictureRow(f'τx  {label}', transform(images, params)))
        rows.append(PictureRow(f'D(τE(x))  {label}', autoencoder.decode(transform(latents, params))))
    return [*rows, PictureRow('PCA of E(x)', principal_components(latents), fills=True)]


def sample_rows(
    read: Callable[[Sequence[int]], Tensor], labels: Sequence[int], *, columns: int = 8
) -> list[PictureRow]:
    """Return at most 8 rows of samples: one class a row, or in their order if most classes have too few.

    Args:
        read: Numbers of samples → their images (B, 3, H, W), uint8.
        labels: The classes of the samples 0, 1, …
        columns: The most samples in a row.
    """
    members: dict[int, list[int]] = {}
    for number, label in enumerate(labels):
        members.setdefault(label, []).append(number)
    largest = sorted(members, key=lambda label: (-len(members[label][:columns]), label))[:_MAX_ROWS]
    width = min(columns, *(len(members[label]) for label in largest)) if largest else 0
    if 2 * width > columns:
        return [PictureRow(f'class {label}', to_float(read(members[label][:width]))) for label in sorted(largest)]
    columns = min(columns, len(labels))
    starts = range(0, min(len(labels) - columns + 1, _MAX_ROWS * columns), columns)
    return [PictureRow('', to_float(read(range(start, start + columns)))) for start in starts]


def draw_grid(rows: Sequence[PictureRow]) -> Image.Image:
    """Draw labelled rows of images; images smaller than the first row's are centred on their tiles.

    Args:
        rows: With equal numbers of images. The first row's images fill their tiles, which have
            their size, but at least 96 pixels a side.

    Raises:
        ValueError: If a pixel is NaN or infinite: it would be shown black.
    """
    size, columns = rows[0].images.shape[-1], len(rows[0].images)
    tile = max(size, _MIN_TILE)
    step = tile + _GAP
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / 'DejaVuSans.ttf', 12)  # has τ
    indent = max(_MIN_LABEL_WIDTH, *(round(font.getlength(row.label)) + 2 * _LABEL_INDENT for row in rows))
    canvas = Image.new('RGB', (indent + columns * step, len(rows) * step), 'white')
    pen = ImageDraw.Draw(canvas)
    for number, row in enumerate(rows):
        pen.text((_LABEL_INDENT, number * step + tile // 2 - 6), row.label, fill='black', font=font)
        for column, image in enumerate(row.images):
            picture = to_pil(image)
            width, height = (tile, tile) if row.fills else (round(side * tile / size) for side in picture.size)
            picture = picture.resize((width, height), Image.Resampling.NEAREST)
            left = indent + column * step + (tile - width) // 2
            canvas.paste(picture, (left, number * step + (tile - height) // 2))
    return canvas


def to_pil(image: Tensor) -> Image.Image:
    """Return an image (3, H, W) in [-1, 1] as a PIL image; ValueError for NaN and infinity, which would be black."""
    if not image.isfinite().all():
        raise ValueError(
            'pictures: NaN or infinite values in the pixels; expected finite ones. The weights are damaged, training '
            'diverged, or the precision is too low (use fp32).'
        )
    return Image.fromarray(to_uint8(image.detach().float()).permute(1, 2, 0).contiguous().cpu().numpy())


class ColourBasis(NamedTuple):
    """Directions in a latent space, each shown as a colour: red, green, blue.

    Args:
        mean: (C,), subtracted first.
        directions: (K, C), K at most 3.
        low: (K,), the component that is shown without brightness.
        high: (K,), the component that is shown with full brightness.
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
    """Return the first three principal components of all cells of `latents`, each (B, C, h, w).

    The largest loading of each component is made positive. Colours are spread between the 1st
    and 99th percentile.
    """
    cells = [cells_of(each) for each in latents]
    points = torch.cat(cells) if len(cells) > 1 else cells[0]  # a copy has other strides, and rounds differently
    mean = points.mean(dim=0)
    _, _, directions = torch.linalg.svd(points - mean, full_matrices=False)
    directions = directions[:3]
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    ends = torch.zeros(2, len(directions), device=mean.device)
    return ColourBasis(mean, directions * largest.sign(), *ends).spread(*latents)


def principal_components(latents: Tensor) -> Tensor:
    """Return the first three principal components of `latents` (B, C, h, w) as colours in [-1, 1].

    The basis is fitted to all cells of the batch: see `fit_basis`.
    """
    return fit_basis(latents).colours(latents)


def cells_of(latents: Tensor) -> Tensor:
    """Return the cells (B * h * w, C) of `latents` (B, C, h, w), in float32."""
    return latents.float().permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
