"""Losses and their gradients for a few images at a time: a network's memory is freed before the next ones."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def with_gradients(function: Callable[[Tensor, slice], Tensor], images: Tensor, size: int) -> Tensor:
    """Return `function` of images, and compute the gradients at once, for `size` images at a time.

    The backward pass then multiplies these gradients, which take as much memory as the images, and does not enter the
    function. Gradients are those of an ordinary pass up to rounding: by the chain rule an image's is the product of a
    number from outside and its own.

    Args:
        function: (images (b, C, H, W), their place in the batch) → a number per image (b,). The number may depend on
            its own image alone; or on all, if `size` is at least B and the numbers have the same weight in the loss.
        images: (B, C, H, W).
        size: Number of images at a time.

    Returns:
        The numbers (B,).
    """
    if not (torch.is_grad_enabled() and images.requires_grad):
        return torch.cat([function(images[part], part) for part in _parts(len(images), size)])
    return _WithGradients.apply(images, function, size)


class _WithGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, function: Callable[[Tensor, slice], Tensor], size: int) -> Tensor:
        gradients, values = torch.empty_like(images), []
        for part in _parts(len(images), size):
            with torch.enable_grad():
                piece = images[part].detach().requires_grad_()
                value = function(piece, part)
                (gradients[part],) = torch.autograd.grad(value.sum(), piece)
            values.append(value.detach())
            del value  # its graph, before the next
        ctx.save_for_backward(gradients)
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, of_values: Tensor) -> tuple[Tensor, None, None]:
        (gradients,) = ctx.saved_tensors
        return gradients * of_values[:, None, None, None].to(gradients.dtype), None, None


def _parts(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
