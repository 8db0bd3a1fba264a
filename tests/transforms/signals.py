"""Signals to resample."""

import torch


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def disc(side, across, down, width=3.0):
    """A smooth spot at a place that is no whole number, (1, 1, side, side)."""
    places = torch.arange(side, dtype=torch.float64)
    squares = (places[:, None] - down) ** 2 + (places - across) ** 2
    return torch.exp(-squares / (2 * width**2))[None, None]
