"""Weights of a published generator for other classes, another grid or other channels, to fine-tune it.

Only the tensors named here are resized; all others must fit as they are.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eqzoo.checkpoints.generator import fill_generator, read_generator
from eqzoo.generators.positions import rotation_angles, sine_positions

Change = Literal['classes', 'grid', 'channels']

_LABELS, _POSITIONS = 'y_embedder.embedding_table.weight', 'pos_embed'
_IN, _OUT = 'x_embedder.proj.weight', 'final_layer.linear.weight'
_OUT_BIAS = 'final_layer.linear.bias'
_CODES = ('tok_emb.weight', 'pos_emb', 'bias')
_ROTATIONS = ('feat_rope.freqs_cos', 'feat_rope.freqs_sin')
_SINES_DIFFER = 1e-4  # rounding of a table of sines, also in half precision of values up to 1: 5e-4 is another table


def load_adapted(network: nn.Module, weights: str | Path | None, changes: Sequence[Change] = ()) -> None:
    """Load a file into a network; the tensors that `changes` names are resized, the rest must fit.

    `network.adapted` lists the resized tensors, a line each. The changes:

    - 'classes': labels that both networks have keep their row, new ones start as no class, which stays the last row.
    - 'grid': fixed sines and rotations are spread over the range of the old grid (PixArt-Sigma, arXiv
      2403.04692); learned positions, and MaskGIT's biases, are resized bicubically.
    - 'channels': latents' and output's channels that both have keep their weights. Further ones start at 0: the
      network sees no new channel at first, and predicts 0 for it. A variance is added at 0, or dropped.

    Args:
        network: A `DiffusionTransformer`, an `AlignedTransformer` or a `MaskTransformer`.
        weights: See `read_generator`. None: the network keeps its weights.
        changes: The ways in which the file's network may differ.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file differs in other ways, or there are changes and no file.
    """
    name = type(network).__name__
    if weights is None:
        if changes:
            raise ValueError(
                f'{name}.adapt: got {tuple(changes)} without weights; expected the weights to fine-tune; set weights=, '
                'or leave adapt out.'
            )
        return
    file, wanted = read_generator(weights), network.state_dict()
    if changes:
        before = file.state
        file.state = adapt_state(before, wanted, changes, num_codes=getattr(network, 'num_codes', None))
        network.adapted = [
            f'{key} {tuple(before[key].shape)} -> {tuple(value.shape)}'
            for key, value in file.state.items()
            if value is not before[key]
        ]
    fill_generator(network, file, weights)


def adapt_state(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    changes: Sequence[Change],
    *,
    num_codes: int | None = None,
) -> dict[str, Tensor]:
    """Return a file's state dict with the tensors of `changes` resized to the shapes in `wanted`; see `load_adapted`.

    A tensor that cannot be resized, as of another width or patch, stays as it is.

    Args:
        state: Weights of the file.
        wanted: Weights of the network.
        changes: The ways in which they may differ.
        num_codes: K of a network of codes.
    """
    adapted = dict(state)
    differing = {key for key in state if key in wanted and state[key].shape != wanted[key].shape}
    if 'classes' in changes and _LABELS in differing:
        adapted[_LABELS] = _kept_rows(state[_LABELS], len(wanted[_LABELS]))
    if 'grid' in changes and _POSITIONS in differing:
        adapted.update(_other_positions(state, wanted))
    if 'channels' in changes and all(key in each for key in (_IN, _OUT, _OUT_BIAS) for each in (state, wanted)):
        adapted.update(_other_channels(state, wanted))
    if all(key in each for key in _CODES for each in (state, wanted)):
        adapted.update(_other_codes(state, wanted, changes, num_codes))
    return adapted


def resize_table(table: Tensor, grid: int, *, last: int = 0) -> Tensor:
    """Resize a table (..., T + last, D) of a square of T places, row by row, to grid * grid places, bicubically.

    Args:
        table: Values by place; the first dimensions have size 1.
        grid: Places a side.
        last: Rows at the end that stay as they are, such as a class token's.
    """
    rows = table.reshape(-1, table.shape[-1])
    count = len(rows) - last
    old = round(count**0.5)
    places = rows[:count].T.reshape(1, -1, old, old)
    places = F.interpolate(places, size=(grid, grid), mode='bicubic', antialias=True)  # as timm resizes positions
    return torch.cat([places.flatten(2)[0].T, rows[count:]]).view(*table.shape[:-2], grid**2 + last, -1)


def _kept_rows(rows: Tensor, count: int) -> Tensor:
    """Return `count` rows: of each label that both have, of no class for new ones, and last of no class."""
    kept = rows[:-1][: count - 1]
    return torch.cat([kept, rows[-1:].expand(count - len(kept), *rows.shape[1:])])


def _other_positions(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    old, grid = (round(each[_POSITIONS].shape[1] ** 0.5) for each in (state, wanted))
    table, width = state[_POSITIONS], state[_POSITIONS].shape[2]
    if width != wanted[_POSITIONS].shape[2]:
        return {}
    is_fixed = (sine_positions(old, width) - table[0].float()).abs().max() < _SINES_DIFFER
    spread = sine_positions(grid, width, extent=old)[None].to(table.dtype)
    found = {_POSITIONS: spread if is_fixed else resize_table(table, grid)}
    if _ROTATIONS[0] in state:
        angles = rotation_angles(grid, state[_ROTATIONS[0]].shape[1], extent=old)
        tables = (angles.cos(), angles.sin())
        found |= {key: each.to(state[key].dtype) for key, each in zip(_ROTATIONS, tables, strict=True)}
    return found


def _other_channels(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    (width, old, patch, _), (wide, new, side, _) = (each[_IN].shape for each in (state, wanted))
    outputs = [len(each[_OUT_BIAS]) / (patch**2 * of) for each, of in ((state, old), (wanted, new))]
    if (width, patch) != (wide, side) or not set(outputs) <= {1, 2}:
        return {}
    found = {}
    if old != new:
        found[_IN] = _cut(state[_IN], new, dim=1)
    halves, wanted_halves = map(int, outputs)  # 2: prediction and variance
    if (old, halves) != (new, wanted_halves):
        for name in (_OUT, _OUT_BIAS):
            # rows of the output layer: place in the patch, then prediction and variance, then channel
            rows = state[name].view(patch**2, halves, old, *state[name].shape[1:])
            found[name] = _cut(_cut(rows, wanted_halves, dim=1), new, dim=2).reshape(wanted[name].shape)
    return found


def _other_codes(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], changes: Sequence[Change], num_codes: int | None
) -> dict[str, Tensor]:
    """Resize the tensors of a network of codes: rows of a table are codes, mask, classes, no class."""
    found = {key: state[key] for key in _CODES}
    count, grid = len(wanted['tok_emb.weight']), round((wanted['pos_emb'].shape[1] - 1) ** 0.5)
    if 'grid' in changes and len(found['bias']) != grid**2 + 1:
        found |= {key: resize_table(found[key], grid, last=1) for key in ('pos_emb', 'bias')}
    if 'classes' in changes and num_codes is not None and len(found['tok_emb.weight']) != count:
        codes = num_codes + 1
        for key, value in (('tok_emb.weight', found['tok_emb.weight']), ('bias', found['bias'].T)):
            rows = torch.cat([value[:codes], _kept_rows(value[codes:], count - codes)])
            found[key] = rows.T.contiguous() if key == 'bias' else rows
    return found


def _cut(values: Tensor, size: int, *, dim: int) -> Tensor:
    """Return `values` with the first `size` entries of a dimension, zeros beyond those that there are."""
    kept = values.narrow(dim, 0, min(size, values.shape[dim]))
    missing = list(values.shape)
    missing[dim] = size - kept.shape[dim]
    return torch.cat([kept, values.new_zeros(missing)], dim=dim)
