"""Equivariance transforms: one draw serves images and latents."""

from eqzoo.transforms.affine import Affine, Motion
from eqzoo.transforms.base import Transform
from eqzoo.transforms.compose import Choice, Compose
from eqzoo.transforms.exact import Flip, Rotate
from eqzoo.transforms.perspective import Perspective
from eqzoo.transforms.resampled import Resampled, Turn
from eqzoo.transforms.scale import AnisotropicScale, IsotropicScale
from eqzoo.transforms.shift import Shift
from eqzoo.transforms.warp import Warp

__all__ = [
    'Affine',
    'AnisotropicScale',
    'Choice',
    'Compose',
    'Flip',
    'IsotropicScale',
    'Motion',
    'Perspective',
    'Resampled',
    'Rotate',
    'Shift',
    'Transform',
    'Turn',
    'Warp',
]
