"""`tools/cache_latents.py`: write the latents of images to a store."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eqzoo.commands.cli import advice
from eqzoo.config import Config, image_dataloader, load_config, require
from eqzoo.files import expand_home
from eqzoo.registry import build
from eqzoo.registry.ranges import PositiveInt
from eqzoo.text import counted, shell_word

if TYPE_CHECKING:
    from eqzoo.data.latents.format import StoreIndex
    from eqzoo.data.latents.write import WrittenStore

# Generators expect latents with a standard deviation of about 1; outside of this range a hint is printed.
_USUAL_STD = (0.8, 1.25)

_STORE = 'LatentStore'


def cache_latents(
    config_file: str,
    checkpoint: str | None = None,
    *,
    overrides: list[str],
    out: str | None = None,
    flip: bool = False,
    dtype: Literal['float32', 'float16', 'bfloat16'] = 'float32',
    precision: Literal['fp32', 'bf16'] = 'fp32',
    shard_images: PositiveInt | None = None,
    verify: bool = False,
    smoke: bool = False,
) -> 'WrittenStore | None':
    """Encode the images of a config to a latent store; run it again to continue after an interruption.

    The images come from `cache_dataloader`, or from `train_dataloader` if there is none; each process encodes batches
    of its batch_size. If the config has a `cache_encoder` (a vision encoder for REPA), its features are stored, too.

    Args:
        config_file: A config with a model.autoencoder, such as configs/demo/rot_scale.py.
        checkpoint: The autoencoder's weights: a training checkpoint or a weights file. Default: the
            config's own.
        overrides: Keys of the config to set, as key=value.
        out: The store's folder. Default: that of train_dataloader's LatentStore.
        flip: Also store the latents of the mirrored images, for a LatentStore with flip=True.
        dtype: Data type of the stored means and standard deviations.
        precision: Precision of the encoder; bf16 uses autocast.
        shard_images: Images per shard. Default: as many as fit into 64 MiB.
        verify: Write nothing; read the whole store and list the damaged rows.
        smoke: Use a tiny autoencoder with random weights and built-in data; the store is written below work_dirs/smoke.
    """
    config = load_config(config_file, overrides)
    require(config, 'images to encode', 'model.autoencoder', 'cache_dataloader|train_dataloader')

    import torch
    from tqdm import tqdm

    from eqzoo.checkpoints.config import plain_config
    from eqzoo.data.latents.write import write_store
    from eqzoo.distributed import close_distributed, get_device, init_distributed, rank_and_world_size, use_device
    from eqzoo.engine import shrink
    from eqzoo.engine.preflight import check_ready
    from eqzoo.engine.smoke import smoke_path
    from eqzoo.engine.work_dir import own_folder
    from eqzoo.precision import use_backends

    root = expand_home(out or _root_of(config))
    root = smoke_path(root) if smoke else root
    if verify:
        _verify(root)
        return None
    use_device(config.device)
    use_backends(config.get('gpu'))
    config = shrink(config) if smoke else config
    loader = image_dataloader(config)
    _choose_weights(config, checkpoint, smoke=smoke)
    # the store itself need not be there, nor what training needs
    parts = dict(autoencoder=config.model.autoencoder, images=loader, encoder=config.get('cache_encoder'))
    command = f'python tools/cache_latents.py {shell_word(config_file)}'
    datasets = check_ready(Config(parts, filename=config.filename), command, tuple(parts))
    init_distributed()
    rank, world_size = rank_and_world_size()
    with own_folder(root, '--out'):
        torch.manual_seed(config.seed)
        autoencoder = build(config.model.autoencoder).to(get_device()).eval()
        encoder = build(config.cache_encoder) if config.get('cache_encoder') else None
        dataset = datasets.get('images.dataset')
        dataset = build(loader['dataset']) if dataset is None else dataset
        with tqdm(total=len(dataset), desc='cache', unit='image', disable=rank > 0, mininterval=1) as bar:
            written = write_store(
                autoencoder,
                dataset,
                root,
                batch_size=loader['batch_size'],
                num_workers=loader['num_workers'],
                flip=flip or _is_flipping(config),
                dtype=dtype,
                precision=precision,
                shard_images=shard_images,
                encoder=encoder,
                config=plain_config(config.model.autoencoder),
                rank=rank,
                world_size=world_size,
                progress=lambda count: bar.update(count * world_size),
            )
    if rank == 0:
        print(advice('\n'.join(_table(written, root, config))))
    close_distributed()
    return written


def _root_of(config: Config) -> str:
    dataset = config.get('train_dataloader', {}).get('dataset', {})
    if not _is_store(dataset) or not dataset.get('root'):
        raise ValueError(
            f'{config.filename}: train_dataloader.dataset is no LatentStore with a root to write to; '
            'give one: --out FOLDER.'
        )
    return dataset['root']


def _choose_weights(config: Config, checkpoint: str | None, *, smoke: bool) -> None:
    if checkpoint is not None:
        config.model.autoencoder.weights = checkpoint
    elif not smoke and config.model.autoencoder.get('weights') is None:
        raise ValueError(
            f'{config.filename}: model.autoencoder names no weights, and latents of random ones are of no use; '
            'give a CHECKPOINT, or model.autoencoder.weights=FILE.'
        )


def _is_store(dataset: Any) -> bool:
    kind = dataset.get('type')
    return getattr(kind, '__name__', kind) == _STORE


def _is_flipping(config: Config) -> bool:
    dataset = config.get('train_dataloader', {}).get('dataset', {})
    return _is_store(dataset) and dataset.get('flip', False)


def _verify(root: Path) -> None:
    from tqdm import tqdm

    from eqzoo.data.latents import LatentStore

    store = LatentStore(str(root))
    shards = tqdm(range(store.plan.num_shards), desc='verify', unit='shard', mininterval=1)
    damaged = [place for shard in shards for place in store.damaged_rows(shard)]
    if damaged:
        raise ValueError(
            f'{root}: {len(damaged)} damaged rows:\n'
            + '\n'.join(f'  {place}' for place in damaged)
            + '\nDelete these shards and run python tools/cache_latents.py CONFIG, which writes what is missing.'
        )
    shards = counted(store.plan.num_shards, 'shard')
    print(f'{root}: {counted(len(store), "image")} in {shards}, every row as it was written.')


def _table(written: 'WrittenStore', root: Path, config: Config) -> Iterator[str]:
    index = written.index
    plan = index.plan
    size = sum(index.shards.values())
    outcomes = {
        'complete': 'already complete; nothing to do',
        'renormalized': "already complete; updated to the autoencoder's current normalisation",
        'written': f'written, {written.num_encoded:,} of {plan.num_images:,} images by this run',
    }
    yield f'{root}: {outcomes[written.outcome]}'
    kinds = ', '.join(f'{name} {"x".join(map(str, each.shape))} {each.dtype}' for name, each in plan.fields.items())
    yield f'{"row":<12}{kinds}{", and of the mirrored image" if plan.flip else ""}'
    classes, shards = counted(len(index.classes), 'class'), counted(len(index.shards), 'shard')
    yield f'{"images":<12}{plan.num_images:,} of {classes}, in {shards}'
    yield f'{"size":<12}{size / 2**20:,.1f} MiB, {size / plan.num_images / 2**10:,.1f} KiB an image'
    if written.num_encoded:
        yield f'{"speed":<12}{written.num_encoded / written.seconds:,.3g} images/s'
    if plan.num_codes is not None:
        yield f'{"codes":<12}of a codebook of {plan.num_codes:,}'
        return
    std, channels = normalized_std(index)
    yield f'{"std":<12}{std:.3f} in generator units, {min(channels):.3f} to {max(channels):.3f} by channel'
    if not _USUAL_STD[0] <= std <= _USUAL_STD[1]:
        yield from _measure_again(config)


def _measure_again(config: Any) -> Iterator[str]:
    """Yield the commands that normalise latents of another spread than generators expect."""
    weights = config.model.autoencoder.get('weights') or 'CHECKPOINT'
    word = shell_word(weights if isinstance(weights, str) else ','.join(map(str, weights)))
    yield (
        f'Generators expect about 1. Measure the latents again, then run this command again, which takes seconds: '
        f'python tools/latent_stats.py {shell_word(config.filename)} {word}'
    )
    if not _has_place(weights):
        yield (
            f'{word} has no place for the result; convert it first: python tools/convert.py {word} NEW.pth '
            '--to eqzoo, use NEW.pth in both commands, and set model.autoencoder.weights to it in the config.'
        )


def _has_place(weights: Any) -> bool:
    """Return whether `tools/latent_stats.py` can write into these weights."""
    from eqzoo.checkpoints.write import writable_format

    try:
        writable_format(weights)
    except (ValueError, OSError, TypeError):
        return False
    return True


def normalized_std(index: 'StoreIndex') -> tuple[float, list[float]]:
    """Return the standard deviation of drawn latents in generator units, over all channels and of each."""
    import torch

    from eqzoo.normalization import LatentMoments

    mean, std = (torch.tensor(index.statistics[name], dtype=torch.float64) for name in ('mean', 'std'))
    normalization = index.autoencoder['normalization']
    moments = LatentMoments(mean, std.square(), index.plan.num_images).normalized(**normalization)
    return moments.overall_std, moments.std.tolist()
