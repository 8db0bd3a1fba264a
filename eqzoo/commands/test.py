"""`tools/test.py`: evaluate what a config describes."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import all_gather_object
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from eqzoo import __version__
from eqzoo.autoencoders.diffusers_folder import digest
from eqzoo.distributed import close_distributed, init_distributed, rank_and_world_size
from eqzoo.engine import latest_checkpoint, load_config, shrink
from eqzoo.engine.autoencoder_training import to_float
from eqzoo.engine.loops import compute, update
from eqzoo.engine.picture_hook import example_images
from eqzoo.engine.preflight import missing, report
from eqzoo.engine.runner import build_evaluators, eval_loader
from eqzoo.evaluators.table import format_table
from eqzoo.evaluators.view import AutoencoderView
from eqzoo.pictures import autoencoder_rows, draw_grid
from eqzoo.registry import build
from eqzoo.zoo import located


def test(
    config_file: str, checkpoint: str | None = None, *, overrides: list[str], smoke: bool = False, images: int = 8
) -> dict[str, Any]:
    """Evaluate what a config describes and write metrics.json and pictures to its work directory.

    Args:
        config_file: A Python config, such as configs/eqvae/sdxl_rot_scale.py.
        checkpoint: A training checkpoint or a weights file. Without it: the newest checkpoint
            in the work directory, else the config's own weights.
        overrides: Keys of the config to set, as key=value.
        smoke: Shrink network and data as `train.py --smoke` does.
        images: Columns of the picture grid.
    """
    config = load_config(config_file, overrides)
    config = shrink(config) if smoke else config
    weights = _choose_weights(config, checkpoint)
    # only what is evaluated has to be there: neither training data nor losses
    needed = Config(
        dict(
            autoencoder=config.model.autoencoder, test_dataloader=config.test_dataloader, evaluators=config.evaluators
        ),
        filename=config.filename,
    )
    lacks = missing(needed, ('autoencoder', 'test_dataloader', 'evaluators'))
    if lacks:
        raise ValueError(report(config, lacks, f'python tools/test.py {config_file}'))
    init_distributed()
    autoencoder = build(config.model.autoencoder).to(get_device()).eval()
    loader, evaluators = eval_loader(config.test_dataloader), build_evaluators(config)
    metrics, unreadable = evaluate(autoencoder, loader, evaluators)
    result = {
        'metrics': {name: value for name, value in metrics.items() if name.count('/') < 2},
        'cases': {name: value for name, value in metrics.items() if name.count('/') == 2},
        'card': {
            'config': config_file,
            'weights': {'file': weights, 'sha256': _sha256(weights)},
            'data': loader.dataset.identity(),
            'num_images': len(loader.dataset) - len(unreadable),
            'unreadable': unreadable,
            'evaluators': {type(each).__name__: each.card() for each in evaluators},
            'eqzoo': __version__,
            'torch': torch.__version__,
        },
    }
    if rank_and_world_size()[0] == 0:
        _save(result, autoencoder, loader, images, Path(config.work_dir))
        print(format_table({Path(config_file).stem: result['metrics']}))
        print(f'Written: {config.work_dir}/metrics.json and test.png')
    close_distributed()
    return result


@torch.no_grad()
def evaluate(autoencoder: nn.Module, loader: DataLoader, evaluators: list[Any]) -> tuple[dict[str, float], list[str]]:
    """Return the metrics over all images of `loader`, and the names of unreadable ones."""
    device = autoencoder.last_layer.device
    unreadable: list[str] = []
    hidden = rank_and_world_size()[0] > 0
    for batch in tqdm(loader, desc='test', unit='batch', disable=hidden, file=sys.stdout, mininterval=1):
        view = AutoencoderView(autoencoder, to_float(batch['images'].to(device)), batch['indices'])
        update(evaluators, view, batch)
        unreadable += batch['unreadable']
    everyones = [name for names in all_gather_object(unreadable) for name in names]
    return compute(evaluators, len(loader.dataset)), everyones


def _without_nan(value: Any) -> Any:
    """Replace numbers that JSON does not have by null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _choose_weights(config: Config, checkpoint: str | None) -> str:
    """Point the autoencoder's config at the weights to evaluate, and return their path."""
    latest = latest_checkpoint(config.work_dir)
    chosen = checkpoint or (str(latest) if latest else config.model.autoencoder.get('weights'))
    if not chosen:
        raise ValueError(
            f'Nothing to evaluate: {config.work_dir} has no checkpoint and the config names no weights. '
            f'Train first (python tools/train.py {config.filename}) or give a CHECKPOINT.'
        )
    config.model.autoencoder.weights = chosen
    return chosen


def _sha256(weights: Any) -> str:
    """Return the digest of a weights file; of a folder's files or of a pair, one after the other."""
    paths = [located(each) for each in (weights if isinstance(weights, list | tuple) else [weights])]
    return digest(*(file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])))


def _save(result: dict[str, Any], autoencoder: nn.Module, loader: DataLoader, images: int, work_dir: Path) -> None:
    work_dir.mkdir(parents=True, exist_ok=True)
    temporary = work_dir / '.metrics.json.tmp'
    temporary.write_text(json.dumps(_without_nan(result), indent=2, allow_nan=False) + '\n')
    temporary.replace(work_dir / 'metrics.json')
    examples = example_images(loader.dataset, images).to(autoencoder.last_layer.device)
    draw_grid(autoencoder_rows(autoencoder, examples)).save(work_dir / 'test.png')
