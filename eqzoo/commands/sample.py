"""`tools/sample.py`: draw images from a trained generator."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqzoo.config import load_config, require
from eqzoo.files import with_a_name
from eqzoo.registry.ranges import PositiveInt
from eqzoo.schema import check_keys
from eqzoo.text import counted, shell_word

if TYPE_CHECKING:
    from eqzoo.data.samples import NpzSamples, PngSamples
    from eqzoo.engine.sampling import ImageSampler

_GRID = 8


def sample(
    config_file: str,
    checkpoint: str | None = None,
    *,
    overrides: list[str],
    out: str,
    num: PositiveInt | None = None,
    labels: str | None = None,
    inpaint: str | None = None,
    box: str | None = None,
    smoke: bool = False,
) -> Path:
    """Generate images; run it again to continue after an interruption, or to add more.

    Sample n depends only on `sampling.seed` and n: batch size and number of processes only change
    rounding. A JSON file with the settings and a picture of some samples are written beside OUT.

    Args:
        config_file: A generator's config, such as configs/dit/dit_tiny_shapes.py.
        checkpoint: A training checkpoint, whose moving average is used, or a published weights file. Default: the
            newest checkpoint in the work directory, or the config's own weights.
        overrides: Keys of the config to set, such as sampling.seed=1 or sampling.sampler.steps=50.
        out: A folder for PNG files, or an npz file for ADM's evaluator.
        num: Number of images. Default: the config's sampling.num_samples.
        labels: random: any class. balanced: the classes in turn. Or classes separated by commas, such as 207,360.
            Default: the config's sampling.labels.
        inpaint: A folder or zip of images. The part inside BOX is generated again, by a generator of codes (MaskGIT);
            sample n uses image n. Default: the config's sampling.inpaint, or whole images.
        box: TOP,LEFT,BOTTOM,RIGHT as shares of the image's sides, such as 0.25,0.25,0.75,0.75.
        smoke: Use the checkpoint of a `--smoke` run; OUT is then below work_dirs/smoke.
    """
    config = load_config(config_file, overrides)
    require(config, 'samples', 'model.autoencoder')
    if (inpaint is None) != (box is None):
        raise ValueError('--inpaint and --box: got one of them; expected both, or none.')
    corners = None if box is None else _corners(box)

    from eqzoo.distributed import close_distributed, init_distributed, rank_and_world_size, use_device
    from eqzoo.engine import shrink
    from eqzoo.engine.sampling import (
        build_image_sampler,
        check_has_sampling,
        check_sampling_ready,
        claim_sample_files,
        generator_weights,
    )
    from eqzoo.engine.smoke import smoke_path
    from eqzoo.engine.work_dir import own_file
    from eqzoo.precision import use_backends

    use_device(config.device)
    use_backends(config.get('gpu'))
    if smoke:
        config, out = shrink(config), str(smoke_path(out))
    out = str(with_a_name(out))  # files are written beside it
    check_has_sampling(config)
    if num is not None:
        config.sampling.num_samples = num
    if labels is not None:
        config.sampling.labels = _parsed(labels)
    if inpaint is not None:
        config.sampling.inpaint = dict(root=inpaint, box=corners)
    check_keys(config)  # before networks are built
    weights = generator_weights(config, checkpoint)
    check_sampling_ready(config, weights, f'python tools/sample.py {shell_word(config_file)}')
    init_distributed()
    with own_file(out, '--out'):
        draw = build_image_sampler(config, weights)
        files = claim_sample_files(out, config, weights, draw.autoencoder)
        _draw_missing(draw, files, config.sampling)
        if rank_and_world_size()[0] == 0:
            print(_finish(draw, files, out, config.sampling.num_samples))
    close_distributed()
    return Path(out)


def _parsed(labels: str) -> str | list[int]:
    words = [word.strip() for word in labels.split(',')]
    return [int(word) for word in words] if all(word.isdecimal() for word in words) else labels


def _corners(box: str) -> tuple[float, ...]:
    try:
        top, left, bottom, right = map(float, box.split(','))
    except ValueError:
        raise ValueError(f'--box: got {box!r}; expected TOP,LEFT,BOTTOM,RIGHT, such as 0.25,0.25,0.75,0.75.') from None
    return top, left, bottom, right


def _draw_missing(draw: 'ImageSampler', files: 'PngSamples | NpzSamples', sampling: Any) -> None:
    """Draw the samples that do not exist yet, each process its share."""
    from tqdm import tqdm

    from eqzoo.distributed import all_gather_object, rank_and_world_size, wait_for_all
    from eqzoo.engine.sampling import batches

    rank, world_size = rank_and_world_size()
    wanted = range(sampling.num_samples)
    # the first process's list: others may already be writing when this one looks
    lacking = all_gather_object(sorted(set(wanted) - files.numbers()) if rank == 0 else [])[0]
    own = lacking[rank::world_size]
    bar = tqdm(total=len(lacking), desc='sample', unit='image', disable=rank > 0, file=sys.stdout, mininterval=1)
    with bar:
        started = time.perf_counter()
        for numbers in batches(own, sampling.batch_size):
            files.write(numbers, draw(numbers).cpu())
            bar.update(min(len(numbers) * world_size, bar.total - bar.n))
        seconds = time.perf_counter() - started
    wait_for_all()
    if rank == 0 and lacking:
        print(f'{len(lacking):,} images drawn, {len(lacking) / seconds:.3g} images/s')


def _finish(draw: 'ImageSampler', files: 'PngSamples | NpzSamples', out: str, count: int) -> str:
    from eqzoo.files import save_picture
    from eqzoo.pictures import draw_grid, sample_rows

    there = files.numbers()
    while count in there:
        count += 1
    labels = draw.labels_of(range(count))
    files.finish(labels.tolist())
    picture = Path(out).with_suffix('') if Path(out).suffix == '.npz' else Path(out)
    picture = picture.with_name(f'{picture.name}_grid.png')
    some = list(range(min(count, 16 * _GRID * _GRID)))
    save_picture(draw_grid(sample_rows(files.read, labels[some].tolist(), columns=_GRID)), picture)
    return f'Written: {out}, {counted(count, "sample")} of {counted(len(labels.unique()), "class")}; {picture}'
