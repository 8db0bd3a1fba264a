"""`tools/latent_stats.py`: measure the latents again after fine-tuning, and let the checkpoint know."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from eqzoo.checkpoints.write import writable_format, write_normalization
from eqzoo.config import load_config
from eqzoo.data import build_eval_loader
from eqzoo.data.loaders import Key, split_key
from eqzoo.distributed import close_distributed, get_device, init_distributed, rank_and_world_size, use_device
from eqzoo.engine import shrink
from eqzoo.images import to_float
from eqzoo.normalization import LatentMoments, NormalizationKind, measure_moments
from eqzoo.registry import build


def latent_stats(
    config_file: str,
    checkpoint: str,
    *,
    overrides: list[str],
    normalization: NormalizationKind = 'scale',
    num_images: int = 10_000,
    exports: str | None = None,
    measure_only: bool = False,
    smoke: bool = False,
) -> LatentMoments:
    """Measure scale, shift, mean and standard deviation of latents, and write them into the checkpoint.

    Equivariant fine-tuning moves them: EQ-SDXL-VAE's scale went from 0.13025 to 0.1275.

    Args:
        config_file: The config that the checkpoint belongs to; its training images are measured.
        checkpoint: A checkpoint of eqzoo, or what tools/convert.py wrote.
        overrides: Keys of the config to set, as key=value.
        normalization: scale: one factor, as in SD-VAE and SDXL-VAE. shift_scale: one shift and one
            factor, as in SD3-VAE. per_channel: mean and standard deviation of each, as in VA-VAE.
        num_images: How many of the training images, evenly over the data set.
        exports: Further files of the same autoencoder to write into, separated by commas.
        measure_only: Write nothing.
        smoke: For the checkpoint of a `--smoke` run.
    """
    config = load_config(config_file, overrides)
    use_device(config)
    config = shrink(config) if smoke else config
    files = [checkpoint, *(exports.split(',') if exports else [])]
    if not measure_only:
        for file in files:  # told before measuring, not after
            writable_format(file)
    init_distributed()
    autoencoder = build({**config.model.autoencoder, 'weights': checkpoint}).to(get_device()).eval()
    moments = measure_moments(autoencoder, _images(config, num_images))
    shift, scale = moments.normalization(normalization)
    if rank_and_world_size()[0] == 0:
        print('\n'.join(_table(moments, autoencoder, shift, scale)))
        for file in [] if measure_only else files:
            write_normalization(file, shift, scale)
            print(f'Written: {file}')
    close_distributed()
    return moments


def _images(config: Any, num_images: int) -> Iterator[Tensor]:
    dataset = _EvenlySpread(build(config.train_dataloader.dataset), num_images)
    loader = config.get('val_dataloader') or config.train_dataloader
    rank, world_size = rank_and_world_size()
    batches = build_eval_loader(
        dataset,
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        rank=rank,
        world_size=world_size,
    )
    for batch in tqdm(batches, desc='latents', unit='batch', disable=rank > 0, mininterval=1):
        yield to_float(batch['images'])


class _EvenlySpread(Dataset):
    """At most `count` images of a data set, evenly over it: files are sorted by class."""

    def __init__(self, dataset: Any, count: int) -> None:
        self.dataset = dataset
        self.count = min(count, len(dataset))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: Key) -> dict[str, Any]:
        index, draw = split_key(key, self.count)
        return self.dataset[index * len(self.dataset) // self.count, draw]


def _table(moments: LatentMoments, autoencoder: Any, shift: Tensor, scale: Tensor) -> Iterator[str]:
    before = autoencoder.normalization
    yield f'{moments.num_images:,} images; raw latents, drawn from their posteriors'
    yield f'{"channel":<9}{"mean":>10}{"std":>10}{"shift":>20}{"scale":>22}'
    for channel in range(len(shift)):
        shifts = f'{before.shift[channel]:.4g} -> {shift[channel]:.4g}'
        scales = f'{before.scale[channel]:.5g} -> {scale[channel]:.5g}'
        yield f'{channel:<9}{moments.mean[channel]:>10.4f}{moments.std[channel]:>10.4f}{shifts:>20}{scales:>22}'
    yield f'{"all":<9}{moments.overall_mean:>10.4f}{moments.overall_std:>10.4f}'
