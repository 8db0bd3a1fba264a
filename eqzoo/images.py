"""Images as numbers: conversion between uint8 and float, and PSNR."""

import torch
from torch import Tensor

from eqzoo.precision import to_double

_MIN_SQUARED_ERROR = 1e-10  # of values in [0, 1]: identical images have 100 dB, not infinity


def to_float(images: Tensor) -> Tensor:
    """Convert uint8 images to float ones in [-1, 1]."""
    return images.float().div_(127.5).sub_(1)


def to_uint8(images: Tensor) -> Tensor:
    """Round images in [-1, 1] to the nearest uint8 value; values outside are clamped."""
    # in place on one copy: fresh memory for each step costs more than the arithmetic
    return images.mul(127.5).add_(128).clamp_(0, 255).to(torch.uint8)


def psnr(images: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return each image's PSNR in dB, (B,), after rounding both to uint8.

    Args:
        images: (B, C, H, W), about [-1, 1].
        target: As images.
        mask: The pixels that count, (H, W), bool; None for all.
    """
    return decibels(squared_error(to_uint8(images), to_uint8(target), mask))


def squared_error(images: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return each image's mean squared error (B,), float64, of values in [0, 1].

    Args:
        images: (B, C, H, W), uint8.
        target: As images.
        mask: The pixels that count, (H, W), bool; None for all.
    """
    difference = (to_double(images) - to_double(target)) / 255
    if mask is None:
        return difference.square().mean(dim=(1, 2, 3))
    return difference.flatten(2)[..., mask.flatten().to(difference.device)].square().mean(dim=(1, 2))


def decibels(error: Tensor) -> Tensor:
    """Return the PSNR of squared errors of values in [0, 1], at most 100 dB."""
    return -10 * error.clamp_min(_MIN_SQUARED_ERROR).log10()
