"""Positions of a square of tokens: fixed sines (MAE, DiT) and rotations of queries and keys (RoPE).

Both can be spread over the range of another grid, so that a network continues at another resolution with the
positions it knows (PixArt-Sigma, arXiv 2403.04692; EVA-02's `ft_seq_len`).
"""

import numpy as np
import torch
from torch import Tensor, nn

_BASE = 10000  # of the frequencies, in both


def sine_positions(grid: int, width: int, *, extent: int | None = None) -> Tensor:
    """Return the fixed position embedding (grid * grid, width) of a square of tokens, row by row.

    As in MAE and DiT, the first half encodes the column and the second the row; each half is sines, then
    cosines, of width / 4 frequencies.

    Args:
        grid: Tokens a side.
        width: Channels of a token, a multiple of 4.
        extent: Spread the tokens over the range of `extent` tokens a side. Default: `grid`.
    """
    frequencies = 1 / _BASE ** (np.arange(width // 4) / (width / 4))
    angles = _places(grid, extent)[:, None] * frequencies
    line = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    columns, rows = np.tile(line, (grid, 1)), np.repeat(line, grid, axis=0)
    return torch.from_numpy(np.concatenate([columns, rows], axis=1)).float()


def rotation_angles(grid: int, width: int, *, extent: int | None = None) -> Tensor:
    """Return the angles (grid * grid, width) by which channels of a head are rotated, row by row, float64.

    The first half of the channels encodes the row and the second the column; two neighbouring channels are rotated
    together, by one of width / 4 frequencies (RoFormer, arXiv 2104.09864, along each axis, as in EVA-02).

    Args:
        grid: Tokens a side.
        width: Channels of a head, a multiple of 4.
        extent: As of `sine_positions`.
    """
    frequencies = 1 / _BASE ** (np.arange(width // 4) / (width / 4))
    line = np.repeat(_places(grid, extent)[:, None] * frequencies, 2, axis=1)
    rows, columns = np.repeat(line, grid, axis=0), np.tile(line, (grid, 1))
    return torch.from_numpy(np.concatenate([rows, columns], axis=1))


class RotaryPositions(nn.Module):
    """Rotate queries and keys (B, heads, T, width) by their places on a square grid, row by row.

    The tables are in the state dict under LightningDiT's names.

    Args:
        grid: Tokens a side.
        width: Channels of a head, a multiple of 4.
    """

    def __init__(self, grid: int, width: int) -> None:
        super().__init__()
        angles = rotation_angles(grid, width)
        self.register_buffer('freqs_cos', angles.cos().float())
        self.register_buffer('freqs_sin', angles.sin().float())

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`, rotated."""
        even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack([-odd, even], dim=-1).flatten(-2)
        return (x * self.freqs_cos + turned * self.freqs_sin).to(x.dtype)


def _places(grid: int, extent: int | None) -> np.ndarray:
    return np.arange(grid) * ((extent or grid) / grid)
