"""What is there of a latent store while it is written: its plan, whole shards, and the index at the end."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from eqzoo import __version__
from eqzoo.autoencoders.digest import autoencoder_digest
from eqzoo.data.latent_encoding import RowEncoder, add_sums, statistics_of
from eqzoo.data.latent_index import (
    INDEX,
    Field,
    Index,
    Plan,
    read_index,
    read_plan,
    shard_name,
    write_index,
    write_plan,
)
from eqzoo.data.latent_shards import LABELS, OtherStoreError, open_shard

# A shard has about this many bytes, but no fewer rows than a large batch.
_SHARD_BYTES = 64 * 2**20
_LEAST_ROWS = 256


def make_plan(rows: RowEncoder, dataset: Any, shard_images: int | None) -> Plan:
    """Return what the store of a data set holds.

    Raises:
        ValueError: If the first image cannot be read, or the data set mirrors at random.
    """
    if getattr(dataset, 'flip', False):
        raise ValueError(
            f'latent store: {type(dataset).__name__}.flip mirrors images at random, which a store would freeze; '
            'accepted is flip=False; store both with --flip, and set flip=True of the LatentStore.'
        )
    if shard_images is not None and shard_images < 1:
        raise ValueError(f'latent store: shard_images must be at least 1, got {shard_images}.')
    fields = rows.fields(readable(dataset[0, 0])['image'])
    row_bytes = (2 if rows.flip else 1) * sum(field.num_bytes for field in fields.values())
    return Plan(
        autoencoder=autoencoder_digest(rows.autoencoder),
        images={key: value for key, value in dataset.identity().items() if key != 'root'},
        num_images=len(dataset),
        shard_images=shard_images or max(_SHARD_BYTES // row_bytes, _LEAST_ROWS),
        flip=rows.flip,
        precision=rows.precision,
        fields={name: Field(field.dtype, field.shape) for name, field in fields.items()},
        num_codes=rows.num_codes,
        encoder=None if rows.encoder is None else dict(rows.encoder.card()),
    )


def begun(root: Path) -> Plan | None:
    """Return the plan of what is at `root`, if anything is."""
    there = read_plan(root)
    return read_index(root).plan if there is None and (root / INDEX).is_file() else there


def agree(root: Path, there: Plan | None, plan: Plan, rank: int) -> None:
    """Refuse what is begun there by another plan; where nothing is, the first process writes this one."""
    if there is not None and there.to_json() != plan.to_json():
        raise ValueError(
            f'{root}: holds a latent store of another plan: {"; ".join(there.differences(plan))}. Choose another '
            '--out, ask for what is there, or remove the folder to write it anew.'
        )
    root.mkdir(parents=True, exist_ok=True)
    if there is None and rank == 0:
        write_plan(root, plan)


def is_whole(root: Path, plan: Plan) -> bool:
    """Return whether the index and all shards are there."""
    if not (root / INDEX).is_file():
        return False
    index = read_index(root)
    return index.plan.to_json() == plan.to_json() and all(
        (root / name).is_file() and (root / name).stat().st_size == size for name, size in index.shards.items()
    )


def is_shard_whole(root: Path, shard: int, plan: Plan) -> bool:
    """Return whether a shard is in its place; one that is cut off is not, one of another store is refused."""
    path = root / shard_name(shard)
    try:
        open_shard(root, shard, plan)
    except FileNotFoundError:
        return False
    except OtherStoreError:
        raise
    except ValueError:
        path.unlink(missing_ok=True)
        return False
    return True


def normalization_of(autoencoder: Any) -> dict[str, list[float]]:
    """Return shift and scale of an autoencoder as plain data."""
    normalization = autoencoder.normalization
    return dict(shift=normalization.shift.tolist(), scale=normalization.scale.tolist())


def renormalize(root: Path, normalization: dict[str, list[float]], rank: int) -> tuple[Any, Index]:
    """Let a whole store know the normalisation; return whether that changed anything, and the index."""
    index = read_index(root)
    if index.autoencoder['normalization'] == normalization:
        return 'complete', index
    index = replace(index, autoencoder={**index.autoencoder, 'normalization': normalization})
    if rank == 0:
        write_index(root, index)
    return 'renormalized', index


def assemble(root: Path, plan: Plan, dataset: Any, autoencoder: dict[str, Any]) -> Index:
    """Write the index of shards that are all there, and remove what killed runs left."""
    sums, shards, num_classes = None, {}, 0
    for number in range(plan.num_shards):
        tensors = open_shard(root, number, plan)
        sums = add_sums(sums, tensors.notes['sums'])
        shards[tensors.path.name] = tensors.path.stat().st_size
        num_classes = max(num_classes, int(tensors.rows(LABELS).view('int64').max()) + 1)
    index = Index(
        plan=plan,
        images=dict(dataset.identity()),
        classes=list(getattr(dataset, 'classes', map(str, range(num_classes)))),
        autoencoder=autoencoder,
        statistics=None if sums is None else statistics_of(sums),
        shards=shards,
        written_with=dict(eqzoo=__version__, torch=torch.__version__),
    )
    write_index(root, index)
    for left_over in root.glob('*.tmp'):
        left_over.unlink()
    return index


def readable(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item or a batch, or refuse one that could not be read."""
    if item.get('unreadable'):
        raise ValueError(
            f'latent store: cannot read {item["unreadable"]}; a store has one row an image; replace or remove the '
            'file and run the command again.'
        )
    return item
