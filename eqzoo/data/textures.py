"""Surfaces of the Shapes data: values in 0 to 1 that mix two colours."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

Array = np.ndarray

# Cells of the noise, coarse to fine; a picture uses those that it can resolve.
OCTAVES = (2, 4, 8, 16, 32, 64, 128)
NUM_FIELDS = 3

_TAU = np.float32(2 * np.pi)


def pixel_axes(size: int) -> tuple[Array, Array]:
    """Return x (1, size) and y (size, 1) of the pixels' centres, in 0 to 1."""
    axis = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return axis[None], axis[:, None]


def noise_fields(rng: np.random.Generator, size: int) -> Array:
    """Draw natural-looking noise: as much power in each octave, a spectrum that falls with 1/f.

    The coarse octaves are drawn first, so that a larger picture shows the same field in finer detail.

    Returns:
        Fields (NUM_FIELDS, size, size) of zero mean and about unit variance. The last is drawn out
        horizontally to four times the length, like water, cloud or wood.
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
    # A cubic spline through knots of variance 1/12 keeps about (0.48 / 12) of it over both axes.
    # Scaled to unit variance at 64 pixels, which resolve five octaves; measured.
    return total * np.float32(3.2)


@lru_cache(maxsize=64)
def _spline(size: int, cells: int) -> Array:
    """Return the weights (size, cells + 3) of a cubic B-spline over `cells` cells, at the pixels' centres."""
    at = (np.arange(size) + 0.5) / size * cells
    distance = np.abs(at[:, None] - (np.arange(cells + 3) - 1))
    inner = 2 / 3 - distance**2 + distance**3 / 2
    outer = np.maximum(2 - distance, 0) ** 3 / 6
    return np.where(distance < 1, inner, outer).astype(np.float32)


def wave(phase: Array, per_pixel: float) -> Array:
    """Return a square wave of `phase` (in periods) with edges one pixel wide, fading where it is too fine."""
    distance = np.abs(phase - np.floor(phase) - 0.5) - np.float32(0.25)
    contrast = min(1.0, 0.25 / per_pixel)
    return np.clip(0.5 + distance * np.float32(1 / per_pixel), 0, 1) * np.float32(contrast) + np.float32(
        0.5 * (1 - contrast)
    )


# A texture: coordinates x, y (in units of the object), noise there, periods per unit, pixels per unit.
Texture = Callable[[Array, Array, Array, float, float], Array]


def plain(x: Array, y: Array, noise: Array, frequency: float, pixels: float) -> Array:
    """Nearly one colour, a little mottled."""
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
    """Noise from end to end."""
    return np.clip(0.5 + 0.32 * noise, 0, 1)


TEXTURES: tuple[Texture, ...] = (plain, gradient, stripes, checks, dots, grain, mottled)
