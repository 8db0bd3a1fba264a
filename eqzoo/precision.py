"""Arithmetic in more precision than a run trains in: float32 without TF32, and float64."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def full_precision() -> Iterator[None]:
    """Turn TF32 off for convolutions and matrix products on CUDA inside the block, and restore it afterwards."""
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def to_double(x: Tensor) -> Tensor:
    """Return `x` in float64, on its device if that has float64 (Apple's have not), otherwise on the CPU."""
    return (x if x.is_cuda else x.cpu()).double()
