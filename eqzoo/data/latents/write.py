"""Write a latent store: plan, then shards, then the index; a stopped run continues where it stopped."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from eqzoo.data.crops import RANDOM_CROPS
from eqzoo.data.latents.format import (
    INDEX,
    LABELS,
    STORAGE_TYPES,
    Field,
    OtherStoreError,
    StoreIndex,
    StorePlan,
    open_shard,
    read_index,
    read_plan,
    shard_name,
    write_index,
    write_plan,
    write_shard,
)
from eqzoo.data.loaders import collate_any, with_reason
from eqzoo.data.workers import worker_options
from eqzoo.distributed import get_device, wait_for_all
from eqzoo.files import remove_leftovers, writing_to
from eqzoo.images import to_float
from eqzoo.normalization import LatentSums
from eqzoo.text import counted

_PRECISIONS = ('fp32', 'bf16')
_MAX_CODES = 2**16  # codes are stored as uint16
# A shard has about this many bytes, but at least the rows of a large batch.
_SHARD_BYTES = 64 * 2**20
_MIN_SHARD_IMAGES = 256
_MAX_NAMES = 10  # unreadable images named in a message


@dataclass(frozen=True)
class WrittenStore:
    """Result of `write_store`.

    Args:
        outcome: 'written'; 'complete', if the store was complete before; 'renormalized', if it was
            complete and only its normalisation was replaced by that of the autoencoder.
        num_encoded: Images encoded by this call, over all processes.
        seconds: Duration of the call.
        index: Index of the store; None except in the first process if any was encoding.
    """

    outcome: Literal['written', 'complete', 'renormalized']
    num_encoded: int
    seconds: float
    index: StoreIndex | None


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
    progress: Callable[[int], None] | None = None,
) -> WrittenStore:
    """Encode every image of a dataset to a latent store.

    Process k % world_size encodes shard k, which appears in its place when it is complete. After a
    kill at any moment the same call continues; on a complete store it returns at once.

    Args:
        autoencoder: The autoencoder, in evaluation mode, on the device to encode on.
        dataset: Images that do not change between reads; each must be readable.
        out: The folder; created if it does not exist.
        batch_size: Images that each process encodes at once. The bytes written do not depend on
            the number of processes.
        num_workers: Processes that read images for this process; 0 reads in this process.
        flip: Whether to store the latents of the mirrored images too.
        dtype: Type of stored moments: 'float32', 'float16' or 'bfloat16'.
        precision: 'fp32', or 'bf16' for autocast.
        shard_images: Rows of a shard. Default: 64 MiB, at least 256 rows.
        encoder: A vision encoder with a `card()`, images uint8 (B, 3, H, W) → features (B, T, D),
            which are stored as bfloat16.
        config: Plain data that builds the autoencoder, for the index.
        rank: This process.
        world_size: Number of processes.
        progress: Called with the number of images that this process just finished; first with those
            that were finished before.

    Raises:
        ValueError: If `out` holds a store of another plan, an image cannot be read, the dataset
            mirrors at random, a latent is not finite, or an argument is out of range.
    """
    started = time.perf_counter()
    root = Path(out).expanduser()
    if batch_size < 1:
        raise ValueError(f'latent store: batch_size must be at least 1, got {batch_size}.')
    encode = _RowEncoder(autoencoder, dtype=dtype, precision=precision, flip=flip, encoder=encoder)
    # Plan
    existing = read_plan(root)
    if shard_images is None and existing is not None:
        shard_images = existing.shard_images
    plan = _make_plan(root, encode, dataset, shard_images, num_workers)
    _claim_folder(root, existing, plan, rank)
    normalization = dict(shift=autoencoder.normalization.shift.tolist(), scale=autoencoder.normalization.scale.tolist())
    if (index := _complete_index(root, plan)) is not None:
        outcome, index = _renormalize(root, index, normalization, rank)
        return WrittenStore(outcome, 0, time.perf_counter() - started, index)
    # Shards
    pending = [shard for shard in range(plan.num_shards) if not _has_shard(root, shard, plan, existing)]
    wait_for_all()  # every process has looked before any process writes
    own = [shard for shard in pending if shard % world_size == rank]
    if progress is not None:
        done = set(range(rank, plan.num_shards, world_size)).difference(own)
        progress(sum(len(plan.rows_of(shard)) for shard in done))
    if own:
        batches = _batches_of(root, dataset, plan, own, pending, batch_size, num_workers)
        _write_shards(root, plan, own, encode, batches, progress)
    wait_for_all()
    # Index
    index = None
    if rank == 0:
        index = _assemble_index(root, plan, dataset, dict(config=config, normalization=normalization))
    wait_for_all()
    num_encoded = sum(len(plan.rows_of(shard)) for shard in pending)
    return WrittenStore('written', num_encoded, time.perf_counter() - started, index)


def _make_plan(
    root: Path, encode: '_RowEncoder', dataset: Any, shard_images: int | None, num_workers: int
) -> StorePlan:
    if getattr(dataset, 'flip', False):
        raise ValueError(
            f'latent store: {type(dataset).__name__}.flip mirrors images at random, which a store would freeze; '
            'expected flip=False; store both with --flip, and set flip=True of the LatentStore.'
        )
    if getattr(dataset, 'crop', None) in RANDOM_CROPS:
        raise ValueError(
            f'latent store: {type(dataset).__name__}.crop={dataset.crop!r} cuts a random square out of each image, and '
            "a store would freeze a single one; expected a fixed crop: set crop='center' of the images to encode."
        )
    if shard_images is not None and shard_images < 1:
        raise ValueError(f'latent store: shard_images must be at least 1, got {shard_images}.')
    first = dataset[0, 0]
    if 'unreadable' in first:
        raise _unreadable(root, dataset, range(len(dataset)), num_workers)
    fields = encode.fields_of(first['image'])
    row_bytes = (2 if encode.flip else 1) * sum(field.num_bytes for field in fields.values())
    return StorePlan(
        autoencoder=autoencoder_digest(encode.autoencoder),
        images={key: value for key, value in dataset.identity().items() if key != 'root'},
        num_images=len(dataset),
        shard_images=shard_images or max(_SHARD_BYTES // row_bytes, _MIN_SHARD_IMAGES),
        flip=encode.flip,
        precision=encode.precision,
        fields=fields,
        num_codes=encode.num_codes,
        encoder=None if encode.encoder is None else dict(encode.encoder.card()),
    )


def _claim_folder(root: Path, existing: StorePlan | None, plan: StorePlan, rank: int) -> None:
    """Refuse a folder with a store of another plan, or with other files of its names; write the plan to a new one."""
    differences = existing.differences(plan) if existing is not None else []
    if differences:
        raise OtherStoreError(
            f'{root}: holds a latent store of another plan: {"; ".join(differences)}. Choose another --out, request '
            'the existing plan, or remove the folder to write it again.'
        )
    with writing_to(root):
        root.mkdir(parents=True, exist_ok=True)
    if rank == 0:
        remove_leftovers(root)
    if existing is None and rank == 0:
        for shard in range(plan.num_shards):  # before the plan, which makes the folder this store's
            _has_shard(root, shard, plan, existing)
        write_plan(root, plan)


def _complete_index(root: Path, plan: StorePlan) -> StoreIndex | None:
    """Return the index if it and all shards are there."""
    if not (root / INDEX).is_file():
        return None
    index = read_index(root)
    paths = {root / name: size for name, size in index.shards.items()}
    is_complete = index.plan.sha256 == plan.sha256 and all(
        path.is_file() and path.stat().st_size == size for path, size in paths.items()
    )
    return index if is_complete else None


def _renormalize(
    root: Path, index: StoreIndex, normalization: dict[str, list[float]], rank: int
) -> tuple[Literal['complete', 'renormalized'], StoreIndex]:
    """Write the normalisation into the index of a complete store, if it has another."""
    if index.autoencoder['normalization'] == normalization:
        return 'complete', index
    index = replace(index, autoencoder={**index.autoencoder, 'normalization': normalization})
    if rank == 0:
        write_index(root, index)
    return 'renormalized', index


def _has_shard(root: Path, shard: int, plan: StorePlan, existing: StorePlan | None) -> bool:
    """Return whether a shard is complete; a damaged one of this store will be replaced, any other file is refused."""
    try:
        open_shard(root, shard, plan)
    except FileNotFoundError:
        return False
    except OtherStoreError:
        raise
    except ValueError as error:
        if existing is None:  # nothing was written here yet
            raise OtherStoreError(
                f'{root / shard_name(shard)}: this file is no shard of a latent store ({error}); choose another --out, '
                'or move it away.'
            ) from None
        return False
    return True


def _batches_of(
    root: Path,
    dataset: Dataset,
    plan: StorePlan,
    shards: list[int],
    pending: list[int],
    batch_size: int,
    num_workers: int,
) -> Iterator[dict[str, Any]]:
    """Yield the batches of the images of `shards` in order; no batch has images of two shards.

    Raises:
        ValueError: At the first unreadable image, naming all of the shards `pending`, those of all processes.
    """
    batches = []
    for shard in shards:
        images = plan.rows_of(shard)
        for start in range(images.start, images.stop, batch_size):
            batches.append([(index, index) for index in range(start, min(start + batch_size, images.stop))])
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        **worker_options(num_workers),
        collate_fn=collate_any,
        pin_memory=get_device() == 'cuda',
        generator=torch.Generator().manual_seed(0),  # its own, as in eqzoo.data.loaders
    )
    for number, batch in enumerate(loader):
        if batch['unreadable']:
            read = {index for earlier in batches[:number] for index, _ in earlier}
            rest = [index for shard in pending for index in plan.rows_of(shard) if index not in read]
            raise _unreadable(root, dataset, rest, num_workers)
        yield batch


def _unreadable(root: Path, dataset: Any, indices: Sequence[int], num_workers: int) -> ValueError:
    """Read the images `indices`, and return the error that names those that cannot be read."""
    print(
        f'latent store: an image cannot be read; looking for others in {counted(len(indices), "image")}, without '
        'encoding them.',
        file=sys.stderr,
        flush=True,
    )
    loader = DataLoader(
        dataset,
        batch_size=32,
        sampler=[(index, index) for index in indices],
        **worker_options(num_workers),
        collate_fn=_unreadable_names,
        generator=torch.Generator().manual_seed(0),
    )
    names = [name for found in loader for name in found]
    more = f' and {len(names) - _MAX_NAMES:,} more' if len(names) > _MAX_NAMES else ''
    # a plan has the sizes of all files, which a repaired one changes
    delete = f', delete {root}, whose shards so far are of the files as they were,' if read_plan(root) else ''
    return ValueError(
        f'latent store: cannot read {len(names):,} of {counted(len(dataset), "image")}: '
        f'{", ".join(names[:_MAX_NAMES])}{more}; a store has one row for each image; replace or remove these '
        f'files{delete} and run the command again.'
    )


def _unreadable_names(items: list[dict[str, Any]]) -> list[str]:
    """Return the names of the unreadable images, with their reasons."""
    unreadable = [item for item in items if 'unreadable' in item]
    return [with_reason(each['unreadable'], {each['unreadable']: each.get('reason', '?')}) for each in unreadable]


def _write_shards(
    root: Path,
    plan: StorePlan,
    shards: list[int],
    encode: '_RowEncoder',
    batches: Iterator[dict[str, Any]],
    progress: Callable[[int], None] | None,
) -> None:
    """Encode shard after shard; a thread writes each one while the next is encoded."""
    with ThreadPoolExecutor(1) as writer:
        writing = None
        for shard in shards:
            labels, copies, sums = _encode_shard(batches, len(plan.rows_of(shard)), encode, progress)
            if writing is not None:
                writing.result()
            writing = writer.submit(write_shard, root / shard_name(shard), plan, labels, copies, sums)
        writing.result()


def _encode_shard(
    batches: Iterator[dict[str, Any]], count: int, encode: '_RowEncoder', progress: Callable[[int], None] | None
) -> tuple[Tensor, list[dict[str, Tensor]], Any]:
    """Return the labels, the fields of the images and of the mirrored images, and the sums of the latents."""
    labels, pieces, sums, seen = [], [], [], 0
    while seen < count:
        batch = next(batches)
        copies = encode(batch['images'])
        for fields in copies:
            _check_finite(fields, batch['indices'])
        if 'mean' in copies[0]:  # codes have no moments
            sums.append(LatentSums.of(copies[0]['mean'], copies[0].get('std')))
        labels.append(batch['labels'])
        pieces.append(copies)
        seen += len(batch['labels'])
        if progress is not None:
            progress(len(batch['labels']))
    joined = [
        {name: torch.cat([piece[name] for piece in each]) for name in each[0]} for each in zip(*pieces, strict=True)
    ]
    return torch.cat(labels), joined, asdict(reduce(add, sums)) if sums else None


class _RowEncoder:
    """Images to the fields of their rows: raw moments, or codes; and features. Arguments as of `write_store`."""

    def __init__(self, autoencoder: Any, *, dtype: str, precision: str, flip: bool, encoder: Any) -> None:
        if dtype not in STORAGE_TYPES:
            raise ValueError(f'latent store: dtype must be one of {", ".join(STORAGE_TYPES)}, got {dtype!r}.')
        if precision not in _PRECISIONS:
            raise ValueError(f'latent store: precision must be {" or ".join(_PRECISIONS)}, got {precision!r}.')
        self.num_codes = autoencoder.num_codes if autoencoder.has_codebook else None
        if self.num_codes is not None and self.num_codes > _MAX_CODES:
            raise ValueError(
                f'latent store: a codebook of {self.num_codes:,}; codes are stored in 16 bits, up to {_MAX_CODES:,}.'
            )
        self.autoencoder, self.encoder = autoencoder, encoder
        self.dtype, self.precision, self.flip = dtype, precision, flip
        self.device = autoencoder.last_layer.device

    @torch.no_grad()
    def __call__(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Return the fields of `images` (B, 3, H, W) uint8 and, with `flip`, of the mirrored images, on the CPU."""
        images = images.to(self.device, non_blocking=True)
        return [self._encode(each) for each in ((images, images.flip(3)) if self.flip else (images,))]

    @torch.no_grad()
    def fields_of(self, image: Tensor) -> dict[str, Field]:
        """Return types and shapes of a row for an `image` (3, H, W) uint8; only the vision encoder is run."""
        grid = self.autoencoder.grid(*image.shape[1:])
        if self.num_codes is not None:
            fields = {'codes': Field('uint16', grid)}
        else:
            moments = ('mean', 'std') if self.autoencoder.has_posterior else ('mean',)
            fields = {name: Field(self.dtype, (self.autoencoder.latent_channels, *grid)) for name in moments}
        if self.encoder is not None:
            fields['features'] = Field('bfloat16', tuple(self.encoder(image[None].to(self.device)).shape[1:]))
        return fields

    def _encode(self, images: Tensor) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == 'bf16'):
            posterior = self.autoencoder.encode(to_float(images))
            if self.num_codes is not None:
                fields = {'codes': self.autoencoder.bottleneck(posterior.mean).indices.cpu().to(torch.uint16)}
            else:
                moments, dtype = {'mean': posterior.mean, 'std': posterior.std}, getattr(torch, self.dtype)
                fields = {name: each.to(dtype).cpu() for name, each in moments.items() if each is not None}
            if self.encoder is not None:
                fields['features'] = self.encoder(images).to(torch.bfloat16).cpu()
        return fields


def _check_finite(fields: Mapping[str, Tensor], indices: Tensor) -> None:
    for name, values in fields.items():
        if values.is_floating_point():
            finite = torch.isfinite(values.reshape(len(values), -1)).all(1)
            if not finite.all():
                raise ValueError(
                    f'latent store: {name} of image {int(indices[~finite][0])} is not finite; float16 ends at 65,504: '
                    "use dtype='bfloat16' or 'float32'; or the weights of the autoencoder are broken."
                )


def _assemble_index(root: Path, plan: StorePlan, dataset: Any, autoencoder: dict[str, Any]) -> StoreIndex:
    """Write the index of the complete set of shards."""
    sums, shards, num_classes = [], {}, 0
    for number in range(plan.num_shards):
        shard = open_shard(root, number, plan)
        sums += [LatentSums(**shard.notes['sums'])] if shard.notes['sums'] else []
        shards[shard.path.name] = shard.path.stat().st_size
        num_classes = max(num_classes, int(shard.tensors[LABELS].max()) + 1)
    moments = reduce(add, sums).moments(plan.num_images) if sums else None
    index = StoreIndex(
        plan=plan,
        images=dict(dataset.identity()),
        classes=list(getattr(dataset, 'classes', map(str, range(num_classes)))),
        autoencoder=autoencoder,
        statistics=dict(mean=moments.mean.tolist(), std=moments.std.tolist()) if moments else None,
        shards=shards,
        written_with=dict(eqzoo=__version__, torch=torch.__version__),
    )
    write_index(root, index)
    return index
