"""`tools/demo.py`: plain fine-tuning against equivariant fine-tuning, from the same start."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from eqzoo.config import load_config
from eqzoo.engine import latest_checkpoint
from eqzoo.engine.picture_hooks import example_images
from eqzoo.pictures import PictureRow, default_cases, draw_grid, principal_components
from eqzoo.registry import build
from eqzoo.report.table import format_table

_CONFIGS = {'plain': 'configs/demo/plain.py', 'eq': 'configs/demo/rot_scale.py'}
_START = 'configs/demo/pretrain.py'


def demo(
    *,
    overrides: list[str],
    images: str | None = None,
    size: int = 64,
    pretrain_steps: int = 1200,
    steps: int = 500,
    work_dir: str = 'work_dirs/demo',
) -> None:
    """Show that EQ-VAE works: pretrain a small autoencoder, fine-tune it plainly and with EQ, compare.

    Args:
        overrides: Keys to set in all three configs, as key=value.
        images: A folder or zip of images to use instead of the built-in Shapes.
        size: Pixels of a side; whole multiples of 16.
        pretrain_steps: Steps of the common start.
        steps: Steps of each fine-tuning.
        work_dir: Where everything goes; an earlier demo there is replaced.
    """
    started = time.monotonic()
    folder = Path(work_dir)
    data = [*_data_overrides(images, size), *overrides]
    for name in ('pretrain', *_CONFIGS):
        shutil.rmtree(folder / name, ignore_errors=True)
    start = folder / 'pretrain'
    _run('1/3  Train a small autoencoder', 'train', _START, start, pretrain_steps, data)
    weights = f'model.autoencoder.weights={start}/iter_{pretrain_steps}.pth'
    results = {}
    for number, (name, config) in enumerate(_CONFIGS.items(), start=2):
        kind = 'plainly (the control)' if name == 'plain' else 'with rotation + scale equivariance'
        _run(f'{number}/3  Fine-tune it {kind}', 'train', config, folder / name, steps, [*data, weights])
        _run('     Test it', 'test', config, folder / name, None, data)
        results[name] = json.loads((folder / name / 'metrics.json').read_text())['metrics']
    (folder / 'comparison.json').write_text(json.dumps(results, indent=2) + '\n')
    _draw(folder, data)
    print(f"\nSame start, {steps} steps each; eq_err is the centred latent error, eq_err_paper the paper's ratio.\n")
    print(format_table(results))
    print(f'\nPictures: {work_dir}/comparison.png, and pictures/ and test.png in {work_dir}/plain and {work_dir}/eq')
    print(f'Numbers:  {work_dir}/comparison.json')
    print(f'Time:     {time.monotonic() - started:.0f} s')


def _data_overrides(images: str | None, size: int) -> list[str]:
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    if images is None:
        return [f'{loader}.dataset.size={size}' for loader in loaders]
    # 1 % of the images are kept for validation, 2 % for testing
    parts = {'train_dataloader': (0.0, 0.97), 'val_dataloader': (0.97, 0.98), 'test_dataloader': (0.98, 1.0)}
    overrides = []
    for loader, part in parts.items():
        dataset = dict(type='ImageFolder', root=str(images), size=size, part=part)
        overrides.append(f'{loader}.dataset={dataset!r}')
    return overrides


def _run(title: str, command: str, config: str, work_dir: Path, steps: int | None, overrides: list[str]) -> None:
    """Run a command as a user would, with or without a checkout, its output passing through."""
    words = [f'work_dir={work_dir}', *overrides]
    if steps is not None:
        words += [f'train_cfg.max_iters={steps}', f'train_cfg.val_interval={steps}']
    shown = ' '.join(words[:1])
    print(f'\n=== {title}\n    python -m eqzoo {command} {config} {shown} …', flush=True)
    status = subprocess.run([sys.executable, '-m', 'eqzoo', command, config, *words], check=False).returncode
    if status:
        sys.exit(status)


@torch.no_grad()
def _draw(folder: Path, data: list[str]) -> None:
    """Draw plain beside EQ: D(τ∘E(x)) and latent components of the same test images."""
    rows: list[PictureRow] = []
    for name, config_file in _CONFIGS.items():
        config = load_config(config_file, data)
        weights = str(latest_checkpoint(folder / name))
        autoencoder = build(dict(config.model.autoencoder, weights=weights)).eval()
        images = example_images(build(config.test_dataloader.dataset), 8)
        rows = rows or _references(images, autoencoder.grid(*images.shape[-2:]))
        latents = autoencoder.encode(images).mean
        for label, (transform, params) in default_cases(latents.shape[-2:]).items():
            rows.append(PictureRow(f'{name}: D(τE(x)) {label}', autoencoder.decode(transform(latents, params))))
        rows.append(PictureRow(f'{name}: PCA of E(x)', principal_components(latents), fills=True))
    draw_grid(rows).save(folder / 'comparison.png')


def _references(images: Tensor, grid: tuple[int, int]) -> list[PictureRow]:
    cases = default_cases(grid)
    return [
        PictureRow('x', images),
        *(PictureRow(f'τx  {label}', tau(images, params)) for label, (tau, params) in cases.items()),
    ]
