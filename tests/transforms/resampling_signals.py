"""Signals to resample."""

import torch


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def disc(side, across, down, width=3.0):
    """Return a smooth spot at a fractional place, (1, 1, side, side)."""
    places = torch.arange(side, dtype=torch.float64)
    squares = (places[:, None] - down) ** 2 + (places - across) ** 2
    return torch.exp(-squares / (2 * width**2))[None, None]


def coordinates(*size):
    """Return each cell's row and column (1, 2, H, W); bilinear interpolation keeps them exact, and so gives sources."""
    rows, columns = (torch.arange(side, dtype=torch.float64) for side in size)
    return torch.stack([rows[:, None].expand(size), columns.expand(size)])[None]


def waves(*size, across=1.5, down=1.0):
    """Return a smooth signal with the given numbers of periods over the sides, (1, 1, H, W)."""
    v, u = ((torch.arange(side, dtype=torch.float64) + 0.5) / side for side in size)
    return (torch.sin(2 * torch.pi * down * v + 0.4)[:, None] * torch.cos(2 * torch.pi * across * u + 1.0))[None, None]
