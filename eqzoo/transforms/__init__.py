"""Equivariance transforms: one draw serves images and latents."""

from eqzoo.transforms.base import Transform
from eqzoo.transforms.compose import Choice, Compose
from eqzoo.transforms.flip import Flip
from eqzoo.transforms.rotate import Rotate
from eqzoo.transforms.scale import AnisotropicScale, IsotropicScale
from eqzoo.transforms.shift import Shift
from eqzoo.transforms.turn import Turn

__all__ = [
    'AnisotropicScale',
    'Choice',
    'Compose',
    'Flip',
    'IsotropicScale',
    'Rotate',
    'Shift',
    'Transform',
    'Turn',
]
