"""How convolutions see beyond the edge of an image."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

PaddingMode = Literal['zeros', 'reflect']
PADDING_MODES = ('zeros', 'reflect')


class ReflectDownsample(nn.Module):
    """diffusers' `Downsample2D` with the image reflected at its right and bottom edge, where that has zeros.

    Args:
        downsample: The layer whose convolution is taken over, under its name.
    """

    def __init__(self, downsample: nn.Module) -> None:
        super().__init__()
        self.conv = downsample.conv

    def forward(self, x: Tensor) -> Tensor:
        """Halve the sides of `x` (B, C, H, W)."""
        return self.conv(F.pad(x, (0, 1, 0, 1), mode='reflect'))


def set_padding(module: nn.Module, mode: PaddingMode) -> None:
    """Let every padded convolution of `module` pad by `mode`, names and weights unchanged.

    'zeros' is what all public autoencoders were trained with. 'reflect' removes the dark or
    coloured rim that decoded crops of a latent show otherwise; it needs two cells a side.

    Raises:
        ValueError: If `mode` is unknown.
    """
    from diffusers.models.downsampling import Downsample2D

    if mode not in PADDING_MODES:
        raise ValueError(f'padding_mode must be one of {", ".join(PADDING_MODES)}, got {mode!r}.')
    if mode == 'zeros':
        return
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Downsample2D) and child.padding == 0:
                setattr(parent, name, ReflectDownsample(child))
            elif isinstance(child, nn.Conv2d) and max(child.padding) > 0:
                # PyTorch derives this from the mode at construction only
                child.padding_mode = mode
                child._reversed_padding_repeated_twice = [side for side in reversed(child.padding) for _ in range(2)]
