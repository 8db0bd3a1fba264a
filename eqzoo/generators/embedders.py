"""What a diffusion transformer is told: patches, positions, time and class, as vectors."""

import math

import numpy as np
import torch
from torch import Tensor, nn

_FREQUENCIES = 256  # values of a time's embedding before its MLP


class PatchEmbedder(nn.Module):
    """Latents (B, C, h, w) to tokens (B, T, D), row by row."""

    def __init__(self, patch_size: int, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens."""
        return self.proj(x).flatten(2).transpose(1, 2)


class TimeEmbedder(nn.Module):
    """Times (B,) to (B, D): cosines and sines of 128 frequencies, then an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, times: Tensor) -> Tensor:
        """Return the embedding."""
        half = _FREQUENCIES // 2
        steps = torch.arange(half, dtype=torch.float32, device=times.device)
        angles = times.float()[:, None] * torch.exp(-math.log(10000) * steps / half)
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=1).to(self.mlp[0].weight.dtype))


class LabelEmbedder(nn.Module):
    """Classes (B,) to (B, D), from a table whose last row stands for no class."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, labels: Tensor) -> Tensor:
        """Return the rows."""
        check_labels(labels, self.embedding_table.num_embeddings - 1)
        return self.embedding_table(labels)


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Refuse labels (B,) other than classes and `num_classes`, no class.

    Raises:
        ValueError: Naming one, on a CPU: on a GPU looking would wait for it, and the lookup itself fails.
    """
    if labels.device.type != 'cpu' or torch.compiler.is_compiling() or not len(labels):
        return
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most > num_classes:
        raise ValueError(
            f'label {most if most > num_classes else least} is out of range; accepted are 0 to {num_classes - 1}, '
            f'and {num_classes} for no class.'
        )


def sine_positions(grid: int, width: int) -> Tensor:
    """Return the fixed embedding (grid * grid, width) of a square of tokens, row by row.

    The first half is of the column, the second of the row; each is sines, then cosines, of
    width / 4 frequencies (MAE's and DiT's).
    """
    frequencies = 1 / 10000 ** (np.arange(width // 4) / (width / 4))
    angles = np.arange(grid)[:, None] * frequencies
    line = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    columns, rows = np.tile(line, (grid, 1)), np.repeat(line, grid, axis=0)
    return torch.from_numpy(np.concatenate([columns, rows], axis=1)).float()
