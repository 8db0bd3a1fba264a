"""Picture grids of fixed validation images while training."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from eqzoo.engine.autoencoder_training import to_float
from eqzoo.pictures import autoencoder_rows, draw_grid
from eqzoo.registry import HOOKS


@HOOKS.register_module()
class PictureHook(Hook):
    """Draw input, reconstruction, τ∘x beside D(τ∘E(x)) and latent components every N steps.

    Grids go to `<work_dir>/pictures/<step>.png` and to the visualizer.

    Args:
        interval: N, in steps; a grid is also drawn after the last step.
        num_images: Columns of the grid, images spread evenly over the validation data.
    """

    priority = 'BELOW_NORMAL'

    def __init__(self, interval: int = 1000, num_images: int = 8) -> None:
        self.interval = interval
        self.num_images = num_images

    @master_only
    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Draw the grid when it is due."""
        if not (self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner)):
            return
        autoencoder = runner.model.autoencoder
        images = example_images(runner.val_dataloader.dataset, self.num_images).to(autoencoder.last_layer.device)
        was_training = autoencoder.training
        grid = draw_grid(autoencoder_rows(autoencoder.eval(), images))
        autoencoder.train(was_training)
        save_picture(runner, 'autoencoder', grid)

    @classmethod
    def smoke(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return two columns."""
        return {**arguments, 'interval': 2, 'num_images': 2}


def save_picture(runner: Runner, name: str, picture: Image.Image) -> None:
    """Write a picture of the step just done to the work directory, and to the visualizer under `name`."""
    path = Path(runner.work_dir) / 'pictures' / f'{runner.iter + 1:07d}.png'
    path.parent.mkdir(exist_ok=True)
    picture.save(path)
    runner.visualizer.add_image(name, np.asarray(picture), step=runner.iter + 1)


def example_images(dataset: Dataset, count: int) -> Tensor:
    """Return up to `count` readable images spread evenly over `dataset`, (B, 3, H, W) in [-1, 1]."""
    places = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int).tolist()
    images = [item['image'] for item in map(dataset.__getitem__, places) if 'image' in item]
    if not images:
        raise ValueError(f'None of the images {places} of {type(dataset).__name__} can be read.')
    return to_float(torch.stack(images))
