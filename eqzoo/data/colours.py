"""Colours of the Shapes data: mixtures of colours that are common in photographs."""

import numpy as np

# sRGB in 0 to 255: sky, sea, leaf, grass, sand, earth, wood, brick, skin, flower, fruit, stone, snow, night.
_ANCHORS = (
    np.array(
        [
            (126, 172, 216),
            (52, 104, 150),
            (40, 74, 104),
            (74, 110, 46),
            (36, 60, 32),
            (132, 150, 70),
            (212, 190, 148),
            (126, 92, 62),
            (74, 52, 38),
            (162, 114, 70),
            (164, 74, 54),
            (226, 178, 148),
            (208, 52, 60),
            (196, 86, 150),
            (240, 196, 62),
            (232, 128, 44),
            (128, 124, 118),
            (84, 88, 94),
            (236, 238, 238),
            (28, 30, 40),
            (112, 78, 148),
            (70, 160, 156),
        ],
        np.float32,
    )
    / 255
)


def draw_palette(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw `count` colours (count, 3) in 0 to 1: each a little of one anchor in another, lighter or darker."""
    pairs = rng.integers(len(_ANCHORS), size=(count, 2))
    share = 0.35 * rng.random((count, 1), np.float32)
    light = 0.75 + 0.45 * rng.random((count, 1), np.float32)
    colours = (_ANCHORS[pairs[:, 0]] * (1 - share) + _ANCHORS[pairs[:, 1]] * share) * light
    return np.clip(colours + 0.08 * (rng.random((count, 3), np.float32) - np.float32(0.5)), 0, 1)


def most_unlike(colours: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Return the one of `colours` (count, 3) that stands out most from `ground` (3,)."""
    return colours[np.argmax(np.square(colours - ground).sum(1))]


def mix(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Go from `first` to `second`, colours (3,) or pictures (3, h, w), by `share` (h, w)."""
    first, second = (each[:, None, None] if each.ndim == 1 else each for each in (first, second))
    return first + share * (second - first)
