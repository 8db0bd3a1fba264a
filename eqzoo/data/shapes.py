"""Shapes: built-in pictures of textured shapes on natural-looking backgrounds, drawn without any download."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from eqzoo.data.drawing import (
    BACKGROUNDS,
    OUTLINES,
    TEXTURES,
    Array,
    Outline,
    draw_palette,
    gradient,
    mix,
    most_unlike,
    noise_fields,
    pixel_axes,
)
from eqzoo.data.loaders import Key, split_key
from eqzoo.registry import DATASETS
from eqzoo.registry.ranges import NonNegativeInt, PositiveInt, Range

# Raise when `render` changes its pictures: results on other pictures are not comparable.
RECIPE = 1

_OUTLINES = tuple(OUTLINES.values())
# Separate the random numbers of scenes, noise and flips that have the same seed.
_SCENE, _NOISE, _FLIP = 0x5C, 0x5D, 0x5E


@DATASETS.register_module()
class Shapes(Dataset):
    """Textured shapes with shadows in front of natural-looking backgrounds, without any download.

    Picture i is a function of (seed, i) and shows the same scene at every size. Its label is the
    outline of its main object, the largest and foremost; label = i % num_classes, so classes are
    of equal size. Most objects stand upright and light falls from above, so that a rotated picture
    looks unusual.

    An item is `dict(image, label, index, draw)`: the image (3, size, size) uint8.

    Args:
        num_images: Number of pictures.
        size: Side of the pictures in pixels, at least 16.
        num_classes: Number of outlines of the main object, 1 to 10.
        seed: Seed of the pictures and of the flips.
        flip: Whether to mirror left and right with probability 0.5, as a function of (seed, draw).
        cache_bytes: Size of the cache of drawn pictures, which all sets of a process share.

    Example:
        >>> Shapes(100, 32)[3]['image'].shape
        torch.Size([3, 32, 32])
    """

    def __init__(
        self,
        num_images: PositiveInt = 10_000,
        size: Annotated[int, Range(at_least=16)] = 64,
        *,
        num_classes: Annotated[int, Range(at_least=1, at_most=len(OUTLINES))] = len(OUTLINES),
        seed: NonNegativeInt = 0,
        flip: bool = False,
        cache_bytes: NonNegativeInt = 512 * 2**20,
    ) -> None:
        self.num_images, self.size, self.seed, self.flip = num_images, size, seed, flip
        self.classes = list(OUTLINES)[:num_classes]
        self.cache_bytes = cache_bytes

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments for a few small pictures."""
        smaller = dict(num_images=min(arguments.get('num_images', 16), 16), size=min(arguments.get('size', 64), 64))
        return {**arguments, **smaller}

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """Return the item of `key`, an index or (index, draw)."""
        index, draw = split_key(key, len(self))
        label = index % len(self.classes)
        pixels = _DRAWN.get(self.seed, index, self.size, label, limit=self.cache_bytes)
        if self.flip and np.random.default_rng([_FLIP, self.seed, draw]).random() < 0.5:
            pixels = pixels[:, :, ::-1]
        return dict(image=torch.from_numpy(pixels.copy()), label=label, index=index, draw=draw)

    def labels(self) -> list[int]:
        """Return the label of each picture, without drawing it."""
        return [index % len(self.classes) for index in range(self.num_images)]

    def identity(self) -> dict[str, Any]:
        """Return the identity of this set of pictures for metric cards."""
        parameters = dict(
            kind='Shapes',
            recipe=RECIPE,
            num_images=self.num_images,
            size=self.size,
            num_classes=len(self.classes),
            seed=self.seed,
            flip=self.flip,
        )
        return {**parameters, 'sha256': hashlib.sha256(json.dumps(parameters).encode()).hexdigest()}

    def describe(self) -> str:
        """Return one line about this dataset."""
        flip = ', flipped at random' if self.flip else ''
        return (
            f'Shapes: {self.num_images} built-in pictures of {len(self.classes)} shapes, seed {self.seed}, '
            f'{self.size} px{flip}'
        )


class _Drawn:
    """Cache of the pictures drawn in this process, by the arguments of `render`; the oldest are dropped first."""

    def __init__(self) -> None:
        self.pictures: dict[tuple[int, int, int, int], np.ndarray] = {}
        self.num_bytes = 0

    def get(self, *arguments: int, limit: int) -> np.ndarray:
        """Return a picture, drawn if it is not cached, and cache it if `limit` bytes have room for it."""
        pixels = self.pictures.get(arguments) if limit else None
        if pixels is None:
            pixels = render(*arguments)
            if pixels.nbytes <= limit:
                self._keep(arguments, pixels, limit)
        return pixels

    def _keep(self, arguments: tuple[int, int, int, int], pixels: np.ndarray, limit: int) -> None:
        while self.num_bytes + pixels.nbytes > limit:
            self.num_bytes -= self.pictures.pop(next(iter(self.pictures))).nbytes
        self.pictures[arguments] = pixels
        self.num_bytes += pixels.nbytes


# Shared by all sets: the runs of one process, such as those of a study, read the same pictures again and again.
_DRAWN = _Drawn()


@dataclass(frozen=True)
class _Look:
    """Appearance of one object; lengths in units of the side of the picture."""

    outline: Outline
    x: float
    y: float
    radius: float
    turn: float
    texture: int
    frequency: float
    colours: Array
    shading: float
    border: float
    shadow: float


def render(seed: int, index: int, size: int, label: int) -> Array:
    """Render picture `index` of set `seed`: a background, letters, small objects, the main object of outline `label`.

    Returns:
        Pixels (3, size, size), uint8; the same scene at every size, in more or less detail.
    """
    rng = np.random.default_rng([_SCENE, seed, index])
    noise = noise_fields(np.random.default_rng([_NOISE, seed, index]), size)
    palette = draw_palette(rng, 12)
    canvas = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))](rng, palette[:4], noise)
    if rng.random() < 0.4:
        _write_letters(rng, canvas, palette[4])
    for number in range(int(rng.integers(1, 5))):
        outline = _OUTLINES[int(rng.integers(len(_OUTLINES)))]
        radius = 0.06 + 0.13 * rng.random()
        look = _draw_look(rng, outline, rng.random(2), radius, palette[5 + number : 7 + number])
        _paint(canvas, look, noise[number % 2])
    radius = 0.2 + 0.16 * rng.random()
    position = 0.5 + (rng.random(2) - 0.5) * (1.1 - 2 * radius)
    colour = most_unlike(palette[9:], canvas.mean((1, 2)))
    _paint(canvas, _draw_look(rng, _OUTLINES[label], position, radius, np.stack([colour, palette[8]])), noise[1])
    return (canvas * np.float32(255) + np.float32(0.5)).clip(0, 255).astype(np.uint8)


def _draw_look(rng: np.random.Generator, outline: Outline, position: Array, radius: float, colours: Array) -> _Look:
    upright, turn, frequency, shading, border, shadow = rng.random(6).tolist()
    return _Look(
        outline=outline,
        x=float(position[0]),
        y=float(position[1]),
        radius=radius,
        turn=(turn - 0.5) * (0.6 if upright < 0.75 else 6.2831853),
        texture=int(rng.integers(len(TEXTURES))),
        frequency=1.5 + 2.5 * frequency,
        colours=colours,
        shading=0.15 + 0.35 * shading,
        border=0.1 * border if border > 0.5 else 0.0,
        shadow=0.6 * shadow,
    )


def _paint(canvas: Array, look: _Look, noise: Array) -> None:
    """Paint one object and its shadow over `canvas` (3, size, size)."""
    size = canvas.shape[-1]
    reach = look.radius * 1.5 + 1 / size
    rows, columns = (_window(centre, reach, size) for centre in (look.y, look.x))
    x, y = pixel_axes(size)
    x, y = (x[:, columns] - look.x) / look.radius, (y[rows] - look.y) / look.radius
    if not x.size or not y.size:
        return
    part, pixels = canvas[:, rows, columns], look.radius * size
    cos, sin = np.float32(np.cos(look.turn)), np.float32(np.sin(look.turn))
    along, across = cos * x + sin * y, cos * y - sin * x
    # The light comes from above, a little from the left, however the object is turned.
    shift_x, shift_y = np.float32(0.1), np.float32(0.22)
    fallen = look.outline(along - (cos * shift_x + sin * shift_y), across - (cos * shift_y - sin * shift_x))
    part *= 1 - np.float32(look.shadow) * np.clip(0.5 - 3 * fallen, 0, 1)
    distance = look.outline(along, across)
    texture = TEXTURES[look.texture]
    local = (x + 0 * y, y + 0 * x) if texture is gradient else (along, across)
    value = texture(*local, noise[rows, columns], look.frequency, pixels)
    rounded = np.clip(distance * -4, 0, 1) - np.float32(0.6)
    light = 1 + np.float32(look.shading) * (0.5 * rounded - 0.75 * y - 0.2 * x)
    if look.border:
        light = light * (1 - 0.65 * np.clip(0.5 + (distance + look.border) * pixels, 0, 1))
    part += np.clip(0.5 - distance * pixels, 0, 1) * (mix(*look.colours, value) * light - part)


def _write_letters(rng: np.random.Generator, canvas: Array, colour: Array) -> None:
    """Write horizontal lines of letter-like signs: a stem on the left, bars to its right."""
    size = canvas.shape[-1]
    lines, letters = int(rng.integers(1, 4)), int(rng.integers(3, 9))
    signs = rng.random((lines, 6, letters, 4), np.float32) < 0.45
    signs[:, :5, :, 0] = True
    signs[:, 5] = signs[..., 3] = False
    left, top = (rng.random(2) * 0.5).tolist()
    cell = (0.4 + 0.5 * rng.random()) / (4 * letters)
    ink = _boxes(size, 6 * lines, top, 1.3 * cell) @ signs.reshape(6 * lines, 4 * letters).astype(np.float32)
    canvas += 0.9 * (ink @ _boxes(size, 4 * letters, left, cell).T) * (colour[:, None, None] - canvas)


def _boxes(size: int, cells: int, start: float, cell: float) -> Array:
    """Return the share of each pixel that each cell covers, (size, cells)."""
    edges = np.clip((start + cell * np.arange(cells + 1)) * size - np.arange(size)[:, None], 0, 1)
    return np.diff(edges).astype(np.float32)


def _window(centre: float, reach: float, size: int) -> slice:
    return slice(max(0, int((centre - reach) * size)), max(0, min(size, int((centre + reach) * size) + 1)))
