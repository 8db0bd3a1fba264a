"""`tools/latent_stats.py`: measure the latents after fine-tuning, and write their normalisation into a checkpoint."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eqzoo.config import image_dataloader, load_config, require
from eqzoo.registry import build
from eqzoo.registry.ranges import PositiveInt

if TYPE_CHECKING:
    from torch import Tensor

    from eqzoo.normalization import LatentMoments


def latent_stats(
    config_file: str,
    checkpoint: str,
    *,
    overrides: list[str],
    normalization: Literal['scale', 'shift_scale', 'per_channel'] = 'scale',
    num_images: PositiveInt = 10_000,
    exports: str | None = None,
    measure_only: bool = False,
    smoke: bool = False,
) -> 'LatentMoments':
    """Measure scale, shift, mean and standard deviation of latents, and write them into the checkpoint.

    Equivariant fine-tuning changes them: the scale of EQ-SDXL-VAE is 0.1275, that of SDXL-VAE 0.13025.

    Args:
        config_file: The config that the checkpoint belongs to; its training images are measured. With a generator's
            config, these are the images of its latents.
        checkpoint: A checkpoint of eqzoo, or an output of tools/convert.py.
        overrides: Keys of the config to set, as key=value.
        normalization: scale: one factor, as in SD-VAE and SDXL-VAE. shift_scale: one shift and one factor, as in
            SD3-VAE. per_channel: mean and standard deviation of each channel, as in VA-VAE.
        num_images: Number of training images to measure, evenly spread over the data set.
        exports: Other files of the same autoencoder to write the result into, separated by commas.
        measure_only: Print the result and write nothing.
        smoke: Measure the checkpoint of a `--smoke` run, below work_dirs/smoke.
    """
    config = load_config(config_file, overrides)
    require(config, 'images to measure', 'model.autoencoder', 'cache_dataloader|train_dataloader')

    from eqzoo.checkpoints.read import checkpoint_in
    from eqzoo.checkpoints.write import writable_format, write_normalization
    from eqzoo.distributed import close_distributed, get_device, init_distributed, rank_and_world_size, use_device
    from eqzoo.engine import shrink
    from eqzoo.engine.smoke import smoke_path
    from eqzoo.engine.work_dir import own_file
    from eqzoo.normalization import measure_moments
    from eqzoo.precision import use_backends

    use_device(config.device)
    use_backends(config.get('gpu'))
    files = [checkpoint, *(exports.split(',') if exports else [])]
    if smoke:
        config = shrink(config)
        real = [file for file in files if smoke_path(file) != Path(os.path.normpath(file))]
        if real and not measure_only:
            raise ValueError(
                f'--smoke: {real[0]} is not of a smoke run, and would get the moments of built-in pictures; expected '
                'a checkpoint below work_dirs/smoke; leave --smoke out, or give --measure-only.'
            )
    if not measure_only:
        for file in files:  # a file without a place for them is an error before measuring, not after
            writable_format(file)
    init_distributed()
    with ExitStack() as locks:
        # a file that is named twice is locked once
        places = {} if measure_only else {checkpoint_in(Path(file)).resolve(): file for file in files}
        for place, file in places.items():
            locks.enter_context(own_file(place, 'CHECKPOINT' if file == checkpoint else '--exports'))
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


def _images(config: Any, num_images: int) -> Iterator['Tensor']:
    from tqdm import tqdm

    from eqzoo.data import build_eval_loader
    from eqzoo.distributed import rank_and_world_size
    from eqzoo.engine.evaluation import readable_batches
    from eqzoo.images import to_float

    images = image_dataloader(config)
    dataset = _EvenlySpread(build(images['dataset']), num_images)
    # of a generator's config these are the images of its store; an autoencoder's training batches may be small
    loader = config.get('val_dataloader') or images
    rank, world_size = rank_and_world_size()
    batches = build_eval_loader(
        dataset,
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        rank=rank,
        world_size=world_size,
    )
    for batch in readable_batches(tqdm(batches, desc='latents', unit='batch', disable=rank > 0, mininterval=1)):
        yield to_float(batch['images'])


class _EvenlySpread:
    """A data set of at most `count` images of another, evenly over it: its files are sorted by class."""

    def __init__(self, dataset: Any, count: int) -> None:
        self.dataset = dataset
        self.count = min(count, len(dataset))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        index, draw = key
        return self.dataset[index * len(self.dataset) // self.count, draw]


def _table(moments: 'LatentMoments', autoencoder: Any, shift: 'Tensor', scale: 'Tensor') -> Iterator[str]:
    before = autoencoder.normalization
    yield f'{moments.num_images:,} images; raw latents, drawn from their posteriors'
    yield f'{"channel":<9}{"mean":>10}{"std":>10}{"shift":>20}{"scale":>22}'
    for channel in range(len(shift)):
        shifts = f'{before.shift[channel]:.4g} -> {shift[channel]:.4g}'
        scales = f'{before.scale[channel]:.5g} -> {scale[channel]:.5g}'
        yield f'{channel:<9}{moments.mean[channel]:>10.4f}{moments.std[channel]:>10.4f}{shifts:>20}{scales:>22}'
    yield f'{"all":<9}{moments.overall_mean:>10.4f}{moments.overall_std:>10.4f}'
