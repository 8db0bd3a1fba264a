"""Write a latent store: encode images, shard by shard, resumable."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from eqzoo import __version__
from eqzoo.checkpoints.autoencoder import autoencoder_digest
from eqzoo.data.latents.format import (
    INDEX,
    LABELS,
    STORAGE_TYPES,
    Field,
    Index,
    OtherStoreError,
    Plan,
    open_shard,
    read_index,
    read_plan,
    shard_name,
    write_index,
    write_plan,
    write_shard,
)
from eqzoo.data.loaders import collate
from eqzoo.distributed import wait_for_all
from eqzoo.normalization import LatentSums

PRECISIONS = ('fp32', 'bf16')
_MOST_CODES = 2**16


class RowEncoder:
    """Encode images to what a store keeps of each: raw moments, or codes; and features.

    Args:
        autoencoder: With `encode`, and `bottleneck` where it `has_codebook`; in evaluation mode.
        dtype: How moments are stored: 'float32', 'float16' or 'bfloat16'.
        precision: 'fp32', or 'bf16' for autocast of the networks.
        flip: Whether to encode the mirrored images too.
        encoder: A vision encoder, images uint8 (B, 3, H, W) → features (B, T, D), stored as bfloat16.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, autoencoder: Any, *, dtype: str, precision: str, flip: bool, encoder: Any = None) -> None:
        if dtype not in STORAGE_TYPES:
            raise ValueError(f'latent store: dtype must be one of {", ".join(STORAGE_TYPES)}, got {dtype!r}.')
        if precision not in PRECISIONS:
            raise ValueError(f'latent store: precision must be fp32 or bf16, got {precision!r}.')
        self.num_codes = autoencoder.num_codes if autoencoder.has_codebook else None
        if self.num_codes is not None and self.num_codes > _MOST_CODES:
            raise ValueError(
                f'latent store: a codebook of {self.num_codes:,}; codes are stored in 16 bits, up to {_MOST_CODES:,}.'
            )
        self.autoencoder, self.encoder = autoencoder, encoder
        self.dtype, self.precision, self.flip = getattr(torch, dtype), precision, flip
        self.device = autoencoder.last_layer.device

    @torch.no_grad()
    def __call__(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Return the fields of `images` (B, 3, H, W) uint8, with `flip` those mirrored too, on the CPU."""
        images = images.to(self.device, non_blocking=True)
        return [self._fields(each) for each in ((images, images.flip(3)) if self.flip else (images,))]

    @torch.no_grad()
    def fields(self, image: Tensor) -> dict[str, Field]:
        """Return what a row has for images such as `image` (3, H, W) uint8; only the vision encoder is run on it."""
        grid = self.autoencoder.grid(*image.shape[1:])
        if self.num_codes is not None:
            fields = {'codes': Field('uint16', grid)}
        else:
            moments = ('mean', 'std') if self.autoencoder.has_posterior else ('mean',)
            dtype = str(self.dtype).removeprefix('torch.')
            fields = {name: Field(dtype, (self.autoencoder.latent_channels, *grid)) for name in moments}
        if self.encoder is not None:
            fields['features'] = Field('bfloat16', tuple(self.encoder(image[None].to(self.device)).shape[1:]))
        return fields

    @torch.no_grad()
    def _fields(self, images: Tensor) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == 'bf16'):
            posterior = self.autoencoder.encode(images.float().div_(127.5).sub_(1))
            if self.num_codes is not None:
                indices = self.autoencoder.bottleneck(posterior.mean).indices
                fields = {'codes': indices.cpu().to(torch.uint16)}
            else:
                moments = {'mean': posterior.mean, 'std': posterior.std}
                fields = {name: each.to(self.dtype).cpu() for name, each in moments.items() if each is not None}
            if self.encoder is not None:
                fields['features'] = self.encoder(images).to(torch.bfloat16).cpu()
        return fields


def check_finite(fields: Mapping[str, Tensor], indices: Tensor) -> None:
    """Refuse rows that are not finite.

    Raises:
        ValueError: With the first image's number.
    """
    for name, values in fields.items():
        if values.is_floating_point():
            finite = torch.isfinite(values.reshape(len(values), -1)).all(1)
            if not finite.all():
                raise ValueError(
                    f'latent store: {name} of image {int(indices[~finite][0])} is not finite; float16 ends at 65,504: '
                    "use dtype='bfloat16' or 'float32'; or the autoencoder's weights are broken."
                )


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
    sums, shards, num_classes = [], {}, 0
    for number in range(plan.num_shards):
        tensors = open_shard(root, number, plan)
        sums += [LatentSums(**tensors.notes['sums'])] if tensors.notes['sums'] else []  # codes have none
        shards[tensors.path.name] = tensors.path.stat().st_size
        num_classes = max(num_classes, int(tensors.rows(LABELS).view('int64').max()) + 1)
    moments = reduce(add, sums).moments(plan.num_images) if sums else None
    index = Index(
        plan=plan,
        images=dict(dataset.identity()),
        classes=list(getattr(dataset, 'classes', map(str, range(num_classes)))),
        autoencoder=autoencoder,
        statistics=dict(mean=moments.mean.tolist(), std=moments.std.tolist()) if moments else None,
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


Progress = Callable[[int], None]


@dataclass(frozen=True)
class WrittenStore:
    """What `write_store` did.

    Args:
        outcome: 'written'; 'complete', when all was there already; 'renormalized', when all was
            there, and the autoencoder's normalisation is another one now.
        num_encoded: Images encoded by this call, over all processes.
        seconds: That it took.
        index: Of the store; None in any process but the first while others may be writing.
    """

    outcome: Literal['written', 'complete', 'renormalized']
    num_encoded: int
    seconds: float
    index: Index | None


def write_store(
    autoencoder: Any,
    dataset: Dataset,
    out: str | Path,
    *,
    batch_size: int,
    num_workers: int = 0,
    flip: bool = False,
    dtype: str = 'float32',
    precision: str = 'fp32',
    shard_images: int | None = None,
    encoder: Any = None,
    config: Mapping[str, Any] | None = None,
    rank: int = 0,
    world_size: int = 1,
    progress: Progress | None = None,
) -> WrittenStore:
    """Encode every image of a data set to a latent store.

    Shard k is encoded by process k % world_size, and moved to its place when it is whole. The
    same call goes on after a kill at any moment; on a store that is whole it answers at once.

    Args:
        autoencoder: In evaluation mode, on the device where it shall run.
        dataset: Images that are the same whenever they are asked for; each must be readable.
        out: The folder, which may not be there.
        batch_size: Images encoded at once by each process. The bytes written are the same for
            any number of processes.
        num_workers: Processes that read images for this one; 0 reads in this one, in turn with encoding.
        flip: Whether to store the mirrored images' latents too.
        dtype: How moments are stored: 'float32', 'float16' or 'bfloat16'.
        precision: 'fp32', or 'bf16' for autocast.
        shard_images: Rows of a shard. Default: as many as make 64 MiB, at least 256.
        encoder: A vision encoder whose features to store too, with a `card()`.
        config: What builds the autoencoder, plain data, for the index.
        rank: This process.
        world_size: Number of processes.
        progress: Called with the number of this process's images just done; first with those found done.

    Raises:
        ValueError: If `out` holds a store of another plan, an image cannot be read, the data set
            mirrors at random, or a latent is not finite.
    """
    started = time.perf_counter()
    root = Path(out).expanduser()
    rows = RowEncoder(autoencoder, dtype=dtype, precision=precision, flip=flip, encoder=encoder)
    there = begun(root)
    if shard_images is None and there is not None:
        shard_images = there.shard_images
    plan = make_plan(rows, dataset, shard_images)
    agree(root, there, plan, rank)
    normalization = normalization_of(autoencoder)
    if is_whole(root, plan):
        outcome, index = renormalize(root, normalization, rank)
        return WrittenStore(outcome, 0, time.perf_counter() - started, index)
    pending = [shard for shard in range(plan.num_shards) if not is_shard_whole(root, shard, plan)]
    wait_for_all()  # all have looked before anyone writes
    own = [shard for shard in pending if shard % world_size == rank]
    if progress is not None:
        done = set(range(rank, plan.num_shards, world_size)).difference(own)
        progress(sum(len(plan.rows_of(shard)) for shard in done))
    _write_shards(root, plan, own, rows, dataset, batch_size, num_workers, progress)
    wait_for_all()
    num_encoded = sum(len(plan.rows_of(shard)) for shard in pending)
    index = None
    if rank == 0:
        index = assemble(root, plan, dataset, dict(config=config, normalization=normalization))
    wait_for_all()
    return WrittenStore('written', num_encoded, time.perf_counter() - started, index)


def _write_shards(
    root: Path,
    plan: Plan,
    shards: list[int],
    rows: RowEncoder,
    dataset: Dataset,
    batch_size: int,
    num_workers: int,
    progress: Progress | None,
) -> None:
    """Read, encode and write: reading in the loader's processes, writing in a thread, one shard behind."""
    if batch_size < 1:
        raise ValueError(f'latent store: batch_size must be at least 1, got {batch_size}.')
    if not shards:
        return
    batches = iter(_loader(dataset, plan, shards, batch_size, num_workers))
    with ThreadPoolExecutor(1) as writer:
        writing = None
        for shard in shards:
            labels, copies, notes = _encode_shard(batches, len(plan.rows_of(shard)), rows, progress)
            if writing is not None:
                writing.result()
            notes |= dict(plan=plan.sha256)
            writing = writer.submit(write_shard, root / shard_name(shard), labels, copies, notes)
        writing.result()


def _encode_shard(
    batches: Iterator[dict[str, Any]], count: int, rows: RowEncoder, progress: Progress | None
) -> tuple[Tensor, list[dict[str, Tensor]], dict[str, Any]]:
    labels, pieces, sums, seen = [], [], [], 0
    while seen < count:
        batch = readable(next(batches))
        copies = rows(batch['images'])
        for fields in copies:
            check_finite(fields, batch['indices'])
        if 'mean' in copies[0]:
            sums.append(LatentSums.of(copies[0]['mean'], copies[0].get('std')))
        labels.append(batch['labels'])
        pieces.append(copies)
        seen += len(batch['labels'])
        if progress is not None:
            progress(len(batch['labels']))
    joined = [
        {name: torch.cat([piece[name] for piece in each]) for name in each[0]} for each in zip(*pieces, strict=True)
    ]
    return torch.cat(labels), joined, dict(sums=asdict(reduce(add, sums)) if sums else None)


def _loader(dataset: Dataset, plan: Plan, shards: list[int], batch_size: int, num_workers: int) -> DataLoader:
    """Return batches of the shards' images in order; none is of two shards."""
    batches = []
    for shard in shards:
        images = plan.rows_of(shard)
        for start in range(images.start, images.stop, batch_size):
            batches.append([(index, index) for index in range(start, min(start + batch_size, images.stop))])
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(0),  # its own, as eqzoo.data.loaders has
    )


def _collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    unreadable = [item for item in items if 'unreadable' in item]
    return unreadable[0] if unreadable else collate(items)
