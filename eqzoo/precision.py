"""Precision and repeatability of arithmetic: TF32, float64, deterministic kernels."""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Turn TF32 on or off for convolutions and matrix products on CUDA inside the block, and restore it afterwards."""
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = allowed
    try:
        yield
    finally:
        for backend, was in zip(backends, before, strict=True):
            backend.allow_tf32 = was


def full_precision() -> AbstractContextManager[None]:
    """Turn TF32 off for convolutions and matrix products on CUDA inside the block, and restore it afterwards."""
    return tf32(False)


def use_backends(settings: Mapping[str, bool | None] | None) -> None:
    """Choose how torch's libraries for GPUs compute, for this process; without settings nothing is changed.

    Args:
        settings: The key `gpu` of a config. `deterministic`: whether a run repeats to the bit on the same GPU and
            versions; an operation that has no deterministic kernel then raises an error (docs/scaling.md). `tf32`:
            whether float32 convolutions and matrix products round their factors to TF32's 10 bits; None is as torch
            comes, convolutions alone. `cudnn_benchmark`: whether cuDNN tries all algorithms for each new size of a
            convolution and keeps the fastest.

    Raises:
        ValueError: If both `deterministic` and `cudnn_benchmark` are on: what was fastest may be another one next time.
    """
    if not settings:
        return
    deterministic, benchmark = (bool(settings.get(name)) for name in ('deterministic', 'cudnn_benchmark'))
    if deterministic and benchmark:
        raise ValueError(
            'gpu: got deterministic=True with cudnn_benchmark=True, which chooses kernels by their time; expected one '
            'of them.'
        )
    if deterministic:
        # cuBLAS reads this when it is first used; without it products may differ with the streams they run in
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, benchmark
    if settings.get('tf32') is not None:
        for backend in (torch.backends.cudnn, torch.backends.cuda.matmul):
            backend.allow_tf32 = settings['tf32']


@contextmanager
def any_kernels() -> Iterator[None]:
    """Within the block, torch refuses no operation as nondeterministic.

    For those that repeat to the bit all the same, such as sums along the last dimension, which torch 2.6 refuses.
    """
    was = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was[0], warn_only=was[1])


def to_double(x: Tensor) -> Tensor:
    """Return `x` in float64, on its device if that has float64 (Apple's have not), otherwise on the CPU."""
    return (x if x.is_cuda else x.cpu()).double()
