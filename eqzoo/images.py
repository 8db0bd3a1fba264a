"""Images as numbers: 8-bit and floating point."""

import torch
from torch import Tensor


def to_float(images: Tensor) -> Tensor:
    """Turn uint8 images into float ones in [-1, 1]."""
    return images.float().div_(127.5).sub_(1)


def to_uint8(images: Tensor) -> Tensor:
    """Round images in [-1, 1] to 8 bits, to the nearest value."""
    # in place on one copy: fresh memory for each step costs more than the arithmetic
    return images.mul(127.5).add_(128).clamp_(0, 255).to(torch.uint8)
