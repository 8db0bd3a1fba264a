"""Parts of the Shapes pictures: colours, outlines, noise, textures and backgrounds."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

Array = np.ndarray
# Signed distance from the edge, negative inside, of points x, y in units of the object.
Outline = Callable[[Array, Array], Array]
# Share of the second colour, of x, y in units of the object, noise there, periods and pixels per unit.
Texture = Callable[[Array, Array, Array, float, float], Array]
# Picture (3, size, size), of random numbers, four colours (4, 3) and noise (3, size, size).
Background = Callable[[np.random.Generator, Array, Array], Array]

# Cells of the noise, coarse to fine; a picture uses those that it can resolve.
OCTAVES = (2, 4, 8, 16, 32, 64, 128)
NUM_FIELDS = 3

_TAU = np.float32(2 * np.pi)

# Colours that are common in photographs, sRGB in 0 to 255.
_ANCHORS = (
    np.array(
        [
            (126, 172, 216),  # sky
            (52, 104, 150),  # sea
            (40, 74, 104),  # deep sea
            (74, 110, 46),  # leaf
            (36, 60, 32),  # dark leaf
            (132, 150, 70),  # grass
            (212, 190, 148),  # sand
            (126, 92, 62),  # earth
            (74, 52, 38),  # wood
            (162, 114, 70),  # light wood
            (164, 74, 54),  # brick
            (226, 178, 148),  # skin
            (208, 52, 60),  # red flower
            (196, 86, 150),  # pink flower
            (240, 196, 62),  # yellow fruit
            (232, 128, 44),  # orange fruit
            (128, 124, 118),  # stone
            (84, 88, 94),  # dark stone
            (236, 238, 238),  # snow
            (28, 30, 40),  # night
            (112, 78, 148),  # violet flower
            (70, 160, 156),  # turquoise water
        ],
        np.float32,
    )
    / 255
)


def draw_palette(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw `count` colours (count, 3) in 0 to 1: mixtures of two anchors, lighter or darker."""
    pairs = rng.integers(len(_ANCHORS), size=(count, 2))
    share = 0.35 * rng.random((count, 1), np.float32)
    light = 0.75 + 0.45 * rng.random((count, 1), np.float32)
    colours = (_ANCHORS[pairs[:, 0]] * (1 - share) + _ANCHORS[pairs[:, 1]] * share) * light
    return np.clip(colours + 0.08 * (rng.random((count, 3), np.float32) - np.float32(0.5)), 0, 1)


def most_unlike(colours: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Return the colour of `colours` (count, 3) that differs most from `ground` (3,)."""
    return colours[np.argmax(np.square(colours - ground).sum(1))]


def mix(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Interpolate from `first` to `second`, colours (3,) or pictures (3, h, w), by `share` (h, w)."""
    first, second = (each[:, None, None] if each.ndim == 1 else each for each in (first, second))
    return first + share * (second - first)


def disc(x: Array, y: Array) -> Array:
    """A full circle."""
    return np.sqrt(x * x + y * y) - 0.9


def ring(x: Array, y: Array) -> Array:
    """A circular band."""
    return np.abs(np.sqrt(x * x + y * y) - 0.7) - 0.22


def ellipse(x: Array, y: Array) -> Array:
    """An ellipse twice as wide as high; a distance to first order around its edge."""
    inside = np.sqrt(x * x + 4 * y * y)
    return (inside - 1) * inside / (np.sqrt(x * x + 16 * y * y) + 1e-6)


def square(x: Array, y: Array) -> Array:
    """A square."""
    return np.maximum(np.abs(x), np.abs(y)) - 0.75


def triangle(x: Array, y: Array) -> Array:
    """An equilateral triangle, one corner up."""
    return np.maximum(0.8660254 * np.abs(x) - 0.5 * y, y) - 0.5


def hexagon(x: Array, y: Array) -> Array:
    """A regular hexagon on one of its sides."""
    y = np.abs(y)
    return np.maximum(0.8660254 * np.abs(x) + 0.5 * y, y) - 0.82


def star(x: Array, y: Array) -> Array:
    """A five-pointed star, one point up."""
    x = np.abs(x)
    # Two mirrors, lines through 0 at 36 degrees to the axis, fold the five points onto half of the upper one.
    for normal_x, normal_y in ((0.80901699, 0.58778525), (-0.80901699, 0.58778525)):
        beyond = 2 * np.maximum(normal_x * x + normal_y * y, 0)
        x, y = x - beyond * normal_x, y - beyond * normal_y
    x = np.abs(x)
    # The edge from the tip (0, -1) to the notch at radius 0.45 and 36 degrees.
    return 0.92332036 * x - 0.38403063 * (y + 1)


def cross(x: Array, y: Array) -> Array:
    """A plus with equal arms."""
    x, y = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - 0.3, y - 0.9), np.maximum(x - 0.9, y - 0.3))


def crescent(x: Array, y: Array) -> Array:
    """A moon, open to the right."""
    hole = (x - 0.45) * (x - 0.45) + y * y
    return np.maximum(np.sqrt(x * x + y * y) - 0.95, 0.78 - np.sqrt(hole))


def heart(x: Array, y: Array) -> Array:
    """A heart, point down: a square on its corner and two half discs."""
    x, y = np.abs(x), y - 0.08
    tilted_x, tilted_y = (x + y) * 0.70710678, (x - y) * 0.70710678
    body = np.maximum(np.abs(tilted_x), np.abs(tilted_y)) - 0.55
    lobe_x, lobe_y = x - 0.38890873, y + 0.38890873
    return np.minimum(body, np.sqrt(lobe_x * lobe_x + lobe_y * lobe_y) - 0.55)


OUTLINES: dict[str, Outline] = {
    outline.__name__: outline
    for outline in (disc, square, triangle, star, heart, cross, ring, crescent, hexagon, ellipse)
}


def pixel_axes(size: int) -> tuple[Array, Array]:
    """Return x (1, size) and y (size, 1) of the centres of the pixels, in 0 to 1."""
    axis = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return axis[None], axis[:, None]


def noise_fields(rng: np.random.Generator, size: int) -> Array:
    """Draw natural-looking noise: equal power in each octave, a spectrum that falls with 1/f.

    The coarse octaves are drawn first, so that a larger picture shows the same field in finer detail.

    Returns:
        Fields (NUM_FIELDS, size, size) of zero mean and about unit variance. The last is stretched
        horizontally by four, like water, cloud or wood.
    """
    total = np.zeros((NUM_FIELDS, size, size), np.float32)
    for cells in OCTAVES:
        if 2 * cells > size:
            break
        knots = rng.random((NUM_FIELDS, cells + 3, cells + 3), np.float32) - np.float32(0.5)
        rows = _spline(size, cells)
        total[:-1] += rows @ knots[:-1] @ rows.T
        flat = max(cells // 4, 1)
        total[-1] += rows @ knots[-1, :, : flat + 3] @ _spline(size, flat).T
    # A cubic spline over knots of variance 1/12 keeps about 0.48 of the variance over both axes.
    # The factor is measured: it gives unit variance at 64 pixels, which resolve five octaves.
    return total * np.float32(3.2)


@lru_cache(maxsize=64)
def _spline(size: int, cells: int) -> Array:
    """Return the weights (size, cells + 3) of a cubic B-spline over `cells` cells, at the centres of the pixels."""
    at = (np.arange(size) + 0.5) / size * cells
    distance = np.abs(at[:, None] - (np.arange(cells + 3) - 1))
    inner = 2 / 3 - distance**2 + distance**3 / 2
    outer = np.maximum(2 - distance, 0) ** 3 / 6
    return np.where(distance < 1, inner, outer).astype(np.float32)


def wave(phase: Array, per_pixel: float) -> Array:
    """Return a square wave of `phase` (in periods) with edges one pixel wide, fading out where it is too fine."""
    distance = np.abs(phase - np.floor(phase) - 0.5) - np.float32(0.25)
    contrast = min(1.0, 0.25 / per_pixel)
    return np.clip(0.5 + distance * np.float32(1 / per_pixel), 0, 1) * np.float32(contrast) + np.float32(
        0.5 * (1 - contrast)
    )


def plain(x: Array, y: Array, noise: Array, frequency: float, pixels: float) -> Array:
    """Nearly one colour, slightly mottled."""
    return 0.25 + 0.06 * noise


def gradient(x: Array, y: Array, noise: Array, frequency: float, pixels: float) -> Array:
    """From one colour to the other, top to bottom."""
    return np.clip(0.5 + 0.55 * y + 0.04 * noise, 0, 1)


def stripes(x: Array, y: Array, noise: Array, frequency: float, pixels: float) -> Array:
    """Bars across."""
    return wave(y * np.float32(frequency), frequency / pixels)


def checks(x: Array, y: Array, noise: Array, frequency: float, pixels: float) -> Array:
    """A chessboard."""
    first, second = (wave(at * np.float32(frequency), frequency / pixels) for at in (x, y))
    return first + second - 2 * first * second


def dots(x: Array, y: Array, noise: Array, frequency: float, pixels: float) -> Array:
    """Round spots on a square lattice."""
    x, y = x * np.float32(frequency), y * np.float32(frequency)
    x, y = x - np.floor(x) - np.float32(0.5), y - np.floor(y) - np.float32(0.5)
    return np.clip(0.5 + (0.3 - np.sqrt(x * x + y * y)) * np.float32(pixels / frequency), 0, 1)


def grain(x: Array, y: Array, noise: Array, frequency: float, pixels: float) -> Array:
    """Wavy bands, like wood or marble."""
    phase = y * np.float32(frequency) + np.float32(0.35) * noise
    return 0.5 + 0.5 * np.sin(_TAU * phase)


def mottled(x: Array, y: Array, noise: Array, frequency: float, pixels: float) -> Array:
    """Noise over the whole range."""
    return np.clip(0.5 + 0.32 * noise, 0, 1)


TEXTURES: tuple[Texture, ...] = (plain, gradient, stripes, checks, dots, grain, mottled)


def landscape(rng: np.random.Generator, colours: Array, noise: Array) -> Array:
    """Paint a sky with clouds, a hilly horizon, and ground that darkens towards the viewer."""
    size = noise.shape[-1]
    x, y = pixel_axes(size)
    lean, height, hills = rng.random(3).tolist()
    sky = mix(colours[0] * 0.8, colours[0] * 0.4 + 0.6, np.clip(y * 1.6 + 0.12 * noise[2], 0, 1))
    horizon = 0.35 + 0.4 * height + 0.1 * (lean - 0.5) * x + (0.025 + 0.05 * hills) * noise[0, size // 2]
    depth = y - horizon
    ground = mix(colours[1], colours[2] * 0.6, np.clip(0.2 + 0.9 * depth + 0.22 * noise[1], 0, 1))
    return mix(sky, ground, np.clip(0.5 + depth * size, 0, 1))


def wall(rng: np.random.Generator, colours: Array, noise: Array) -> Array:
    """Paint bars, boards, tiles or spots, nearly level."""
    size = noise.shape[-1]
    x, y = pixel_axes(size)
    lean, frequency, contrast, joints = rng.random(4).tolist()
    lean = 0.15 * (lean - 0.5)
    along, across = x + lean * y, y - lean * x
    texture = (stripes, checks, dots, grain)[int(rng.integers(4))]
    value = texture(along, across, noise[2], 4 + 6 * frequency, size)
    if joints < 0.5:
        value = value * (0.6 + 0.4 * wave(along * 3, 3 / size))
    second = colours[0] + (0.35 + 0.5 * contrast) * (colours[1] - colours[0])
    return mix(colours[0], second, value) * (1.12 - 0.3 * y + 0.05 * noise[0])


def surface(rng: np.random.Generator, colours: Array, noise: Array) -> Array:
    """Paint stone, leaves or water."""
    x, y = pixel_axes(noise.shape[-1])
    painted = mix(colours[0], colours[1], mottled(x, y, noise[0 if rng.random() < 0.5 else 2], 1, 1))
    return mix(painted, colours[2], np.clip(0.35 * noise[1] - 0.1, 0, 1)) * (1.15 - 0.3 * y)


def haze(rng: np.random.Generator, colours: Array, noise: Array) -> Array:
    """Paint a gradient between two colours, and soft lights."""
    x, y = pixel_axes(noise.shape[-1])
    lean = rng.random() - 0.5
    painted = mix(colours[0], colours[1], np.clip(y + lean * (x - 0.5) + 0.08 * noise[2], 0, 1))
    for at_x, at_y, radius in rng.random((5, 3)).tolist():
        distance = np.sqrt(np.square(x - at_x) + np.square(y - at_y))
        painted = mix(painted, colours[2], np.clip(1.4 - distance / (0.06 + 0.25 * radius), 0, 0.5))
    return painted


BACKGROUNDS: tuple[Background, ...] = (landscape, wall, surface, haze)
