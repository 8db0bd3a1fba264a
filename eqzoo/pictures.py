"""Pictures of images, reconstructions, transformed latents and samples, as labelled grids."""

from collections.abc import Callable, Mapping, Sequence
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
# Text is a share of the picture's width: 11 pixels high where a telephone shows the picture 450 pixels wide.
_TEXT_SHARE = 0.025
_MIN_TEXT = 13  # pixels
_HEADING = 1.3  # times the size of other text
_MAX_ROWS = 8  # of samples


class PictureRow(NamedTuple):
    """A row of a grid.

    Args:
        label: Written above the images; '' takes no space.
        images: (B, 3, H, W) in [-1, 1].
        fills: Whether the images are enlarged to the size of their tiles.
        heading: Written above the label, in bold: the subject of this row and of those that follow.
    """

    label: str
    images: Tensor
    fills: bool = False
    heading: str = ''


def default_cases(grid: tuple[int, int]) -> dict[str, tuple[EquivarianceTransform, Any]]:
    """Return the transforms that pictures show and their parameters, by words that follow 'image' or 'latent'."""
    rotate, scale = Rotate(), IsotropicScale(interpolation='bicubic', antialias=True, eval_scales=(0.5,))
    (half,) = scale.cases(grid).values()
    return {'rotated by 90°': (rotate, rotate.cases(grid)['90']), 'at half the size': (scale, half)}


@torch.no_grad()
def autoencoder_rows(autoencoders: Mapping[str, nn.Module], images: Tensor) -> list[PictureRow]:
    """Return rows of x, D(E(x)), for each of `default_cases` τ∘x and D(τ∘E(x)), and the latents' components.

    Args:
        autoencoders: In evaluation mode, by what their rows' labels end in; '' adds nothing. Their rows are below
            each other, and the colours of all are in one basis: their latents are of one shape.
        images: x (B, 3, H, W) in [-1, 1].
    """
    ends = {name: f', {name}' if name else '' for name in autoencoders}
    latents = {name: each.encode(images).mean for name, each in autoencoders.items()}
    rows = [PictureRow('image x', images)]
    for name, each in autoencoders.items():
        rows.append(PictureRow(f'reconstruction D(E(x)){ends[name]}', each.decode(latents[name])))
    grid = next(iter(autoencoders.values())).grid(*images.shape[-2:])
    for label, (transform, params) in default_cases(grid).items():
        rows.append(PictureRow(f'image {label}, τx', transform(images, params)))
        for name, each in autoencoders.items():
            decoded = each.decode(transform(latents[name], params))
            rows.append(PictureRow(f'latent {label}, decoded: D(τE(x)){ends[name]}', decoded))
    basis = fit_basis(*latents.values())
    for name, its in latents.items():
        rows.append(PictureRow(f'latent E(x), its PCA colours{ends[name]}', basis.colours(its), fills=True))
    return rows


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
    """Draw rows of images below their labels; images smaller than the first row's are centred on their tiles.

    Args:
        rows: With equal numbers of images. The first row's images fill their tiles, which have
            their size, but at least 96 pixels a side.

    Raises:
        ValueError: If a pixel is NaN or infinite: it would be shown black.
    """
    size, columns = rows[0].images.shape[-1], len(rows[0].images)
    tile = max(size, _MIN_TILE)
    step = tile + _GAP
    height = max(round(_TEXT_SHARE * columns * step), _MIN_TEXT)
    fonts = Path(matplotlib.get_data_path()) / 'fonts' / 'ttf'  # DejaVu has τ
    font = ImageFont.truetype(fonts / 'DejaVuSans.ttf', height)
    bold = ImageFont.truetype(fonts / 'DejaVuSans-Bold.ttf', round(_HEADING * height))
    lines = [[(row.heading, bold), (row.label, font)] for row in rows]
    lines = [[(text, its) for text, its in line if text] for line in lines]
    width = max(columns * step, *(round(its.getlength(text)) + height for line in lines for text, its in line), 0)
    bands = [sum(_band(its) for _, its in line) for line in lines]
    canvas = Image.new('RGB', (width, sum(bands) + len(rows) * step), 'white')
    pen = ImageDraw.Draw(canvas)
    top = 0
    for row, line in zip(rows, lines, strict=True):
        for text, its in line:
            top += _band(its)
            pen.text((height // 3, top - its.size // 3), text, fill='black', font=its, anchor='ls')
        for column, image in enumerate(row.images):
            picture = to_pil(image)
            sides = (tile, tile) if row.fills else tuple(round(side * tile / size) for side in picture.size)
            picture = picture.resize(sides, Image.Resampling.NEAREST)
            left = column * step + (tile - sides[0]) // 2
            canvas.paste(picture, (left, top + (tile - sides[1]) // 2))
        top += step
    return canvas


def _band(font: ImageFont.FreeTypeFont) -> int:
    """Return the height of a line of text with the space above and below it, in pixels."""
    return round(1.7 * font.size)


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


def cells_of(latents: Tensor) -> Tensor:
    """Return the cells (B * h * w, C) of `latents` (B, C, h, w), in float32."""
    return latents.float().permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
