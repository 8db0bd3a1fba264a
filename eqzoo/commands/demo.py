"""`tools/demo.py`: plain fine-tuning against equivariant fine-tuning, from the same start."""

import json
import time
from itertools import pairwise
from pathlib import Path

from eqzoo.commands.cli import COMMANDS
from eqzoo.config import load_config
from eqzoo.files import save_picture, write_json
from eqzoo.registry import build
from eqzoo.registry.ranges import PositiveInt

_SHAPES_START = 'configs/demo/pretrain.py'
_SHAPES = {'plain': 'configs/demo/plain.py', 'eq': 'configs/demo/rot_scale.py'}
_PHOTOGRAPHS_START = 'eqzoo://clothes-f8'
_PHOTOGRAPHS = {'plain': 'configs/demo/photographs_plain.py', 'eq': 'configs/demo/photographs_rot_scale.py'}
_FEWEST = 20
# Keys that the demo sets in its configs, with what sets them.
_DEMO_KEYS = {
    'work_dir': '--work-dir is the folder of all results',
    'resume': 'every demo trains from its start again',
    'train_cfg.max_iters': '--steps and --pretrain-steps set it',
    'train_cfg.val_interval': 'validation follows the last step; --steps and --pretrain-steps set it',
    'model.autoencoder.weights': 'both fine-tunings start from the same weights; --images shapes trains them',
}


def demo(
    *,
    overrides: list[str],
    images: str = 'clothes',
    size: PositiveInt = 64,
    pretrain_steps: PositiveInt = 1200,
    steps: PositiveInt = 500,
    work_dir: str | None = None,
) -> None:
    """Show that EQ-VAE works: fine-tune a small autoencoder plainly and with EQ, from the same start, and compare.

    Args:
        overrides: Keys to set in all configs, as key=value.
        images: 'clothes', photographs that come with eqzoo; a folder, zip, tar or table of 20 images or more
            (docs/data.md); or 'shapes', drawn pictures, for the autoencoders of the small generators' configs.
        size: Pixels of a side, a multiple of 16.
        pretrain_steps: Steps of the start of 'shapes', which is trained from scratch. Photographs start from the
            autoencoder clothes-f8 that comes with eqzoo.
        steps: Steps of each fine-tuning.
        work_dir: The folder of all results; those of an earlier demo in it are replaced. Default: work_dirs/demo
            for shapes, where the generators' configs look, otherwise work_dirs/demo_photographs.
    """
    for each in overrides:
        if reason := _DEMO_KEYS.get(each.partition('=')[0]):
            raise ValueError(f'{each}: the demo sets this key itself ({reason}); leave it out.')
    of_shapes = images == 'shapes'
    configs = _SHAPES if of_shapes else _PHOTOGRAPHS
    starts = [_SHAPES_START] if of_shapes else []
    for config in (*starts, *configs.values()):
        load_config(config, overrides)  # a wrong key is an error here, not after the first training

    import torch

    from eqzoo.engine.preflight import check_training
    from eqzoo.engine.work_dir import empty_of_earlier_runs, own_folder
    from eqzoo.report.table import format_table

    started = time.monotonic()
    folder = Path(work_dir or ('work_dirs/demo' if of_shapes else 'work_dirs/demo_photographs'))
    data = [*_data_overrides(images, size), *overrides]
    start = folder / 'pretrain'
    for config in (*starts, *configs.values()):
        check_training(load_config(config, [*data, 'model.autoencoder.weights=None']), 'python tools/demo.py')
    with own_folder(folder, '--work-dir'):
        lengths = {start: pretrain_steps} if of_shapes else {}
        empty_of_earlier_runs({**lengths, **{folder / name: steps for name in configs}}, '.demo')
        number, count = 1, len(starts) + len(configs)
        weights = _PHOTOGRAPHS_START
        if of_shapes:
            _run(f'1/{count}  Train a small autoencoder', 'train', _SHAPES_START, start, pretrain_steps, data)
            number, weights = 2, str(start / f'iter_{pretrain_steps}.pth')
        results = {}
        for name, config in configs.items():
            kind = 'plainly (the control)' if name == 'plain' else 'with rotation + scale equivariance'
            words = [*data, f'model.autoencoder.weights={weights}']
            _run(f'{number}/{count}  Fine-tune it {kind}', 'train', config, folder / name, steps, words)
            _run('     Test it', 'test', config, folder / name, None, data)
            results[name] = json.loads((folder / name / 'metrics.json').read_text())['metrics']
            number += 1
        write_json(folder / 'comparison.json', results)
        with torch.no_grad():
            _draw(folder, configs, data)
    print(f"\nSame start, {steps} steps each; eq_err is the centred latent error, eq_err_paper the paper's ratio.\n")
    print(format_table(results))
    print(f'\nPictures: {folder}/comparison.png, and pictures/ and test.png in {folder}/plain and {folder}/eq')
    print(f'Numbers:  {folder}/comparison.json')
    print(f'Time:     {time.monotonic() - started:.0f} s')


def _data_overrides(images: str, size: int) -> list[str]:
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    if images in ('clothes', 'shapes'):  # the configs have them, of clothes the parts that clothes-f8 was trained on
        return [f'{loader}.dataset.size={size}' for loader in loaders]
    from eqzoo.data import ImageFolder
    from eqzoo.engine.picture_hooks import example_images

    source, held_out = dict(type='ImageFolder', root=str(images)), _held_out(len(ImageFolder(images, size)), images)
    overrides = []
    for loader, part in zip(loaders, pairwise((0.0, *held_out, 1.0)), strict=True):
        dataset = dict(source, size=size, part=part)
        if loader == 'train_dataloader':
            dataset.update(crop='random_square', flip=True)
        else:
            example_images(build(dataset), 8)  # none can be read: an error now, not after the training
        overrides.append(f'{loader}.dataset={dataset!r}')
    return overrides


def _held_out(count: int, images: str) -> tuple[float, float]:
    """Return the shares of `count` images at which validation and testing begin: at 97 and 98 %, if both have images.

    Of fewer images 5 % are kept for validation and 10 % for testing.

    Raises:
        ValueError: If there are too few.
    """
    if count < _FEWEST:
        raise ValueError(f'{images}: {count} images; the demo needs {_FEWEST} or more, to train, validate and test on.')
    if round(0.97 * count) < round(0.98 * count) < count:
        return 0.97, 0.98
    num_test, num_val = count // 10, count // 20
    return (count - num_test - num_val) / count, (count - num_test) / count


def _run(title: str, command: str, config: str, work_dir: Path, steps: int | None, overrides: list[str]) -> None:
    """Run a command in this process, its command line shown above its output."""
    words = [f'work_dir={work_dir}', *overrides]
    if steps is not None:
        words += [f'train_cfg.max_iters={steps}', f'train_cfg.val_interval={steps}']
    print(f'\n=== {title}\n    python -m eqzoo {command} {config} {words[0]} …', flush=True)
    COMMANDS[command].load()(config, overrides=words)


def _draw(folder: Path, configs: dict[str, str], data: list[str]) -> None:
    """Draw the rows of plain above those of EQ, of the same test images."""
    from eqzoo.engine import latest_checkpoint
    from eqzoo.engine.picture_hooks import example_images
    from eqzoo.pictures import autoencoder_rows, draw_grid

    autoencoders = {}
    for name, config_file in configs.items():
        config = load_config(config_file, data)
        weights = str(latest_checkpoint(folder / name))
        autoencoders[name] = build(dict(config.model.autoencoder, weights=weights)).eval()
    images = example_images(build(config.test_dataloader.dataset), 8)
    save_picture(draw_grid(autoencoder_rows(autoencoders, images)), folder / 'comparison.png')
