"""Outlines of the Shapes data: signed distances, negative inside, about 1 in radius."""

from collections.abc import Callable

import numpy as np

Array = np.ndarray
Outline = Callable[[Array, Array], Array]


def disc(x: Array, y: Array) -> Array:
    """A full circle."""
    return np.sqrt(x * x + y * y) - 0.9


def ring(x: Array, y: Array) -> Array:
    """A circular band."""
    return np.abs(np.sqrt(x * x + y * y) - 0.7) - 0.22


def ellipse(x: Array, y: Array) -> Array:
    """An ellipse twice as wide as high; to first order around its edge."""
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
    # Two mirrors fold the five points onto the upper half of one: lines through 0, 36 degrees off its axis.
    for normal_x, normal_y in ((0.80901699, 0.58778525), (-0.80901699, 0.58778525)):
        beyond = 2 * np.maximum(normal_x * x + normal_y * y, 0)
        x, y = x - beyond * normal_x, y - beyond * normal_y
    x = np.abs(x)
    # From the tip (0, -1) to the notch at radius 0.45, 36 degrees off.
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
    """A heart, its point down: a square on its corner and two half discs."""
    x, y = np.abs(x), y - 0.08
    tilted_x, tilted_y = (x + y) * 0.70710678, (x - y) * 0.70710678
    body = np.maximum(np.abs(tilted_x), np.abs(tilted_y)) - 0.55
    lobe_x, lobe_y = x - 0.38890873, y + 0.38890873
    return np.minimum(body, np.sqrt(lobe_x * lobe_x + lobe_y * lobe_y) - 0.55)


OUTLINES: dict[str, Outline] = {
    outline.__name__: outline
    for outline in (disc, square, triangle, star, heart, cross, ring, crescent, hexagon, ellipse)
}
