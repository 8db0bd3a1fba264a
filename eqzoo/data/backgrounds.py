"""Backgrounds of the Shapes data, most of them level and lighter above, as in photographs."""

from collections.abc import Callable

import numpy as np

from eqzoo.data.colours import mix
from eqzoo.data.textures import checks, dots, grain, mottled, pixel_axes, stripes, wave

Array = np.ndarray

# A background: random numbers, four colours (4, 3) and noise (3, size, size) to a picture (3, size, size).
Background = Callable[[np.random.Generator, Array, Array], Array]


def landscape(rng: np.random.Generator, colours: Array, noise: Array) -> Array:
    """Paint a sky with clouds, a hilly horizon and ground that darkens towards us."""
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
    """Paint one colour going over into another, and soft lights."""
    x, y = pixel_axes(noise.shape[-1])
    lean = rng.random() - 0.5
    painted = mix(colours[0], colours[1], np.clip(y + lean * (x - 0.5) + 0.08 * noise[2], 0, 1))
    for at_x, at_y, radius in rng.random((5, 3)).tolist():
        distance = np.sqrt(np.square(x - at_x) + np.square(y - at_y))
        painted = mix(painted, colours[2], np.clip(1.4 - distance / (0.06 + 0.25 * radius), 0, 0.5))
    return painted


BACKGROUNDS: tuple[Background, ...] = (landscape, wall, surface, haze)
