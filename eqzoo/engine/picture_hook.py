"""Picture grids of fixed validation images while training."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner
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
        num_images: Columns of the grid, the first readable images of the validation data.
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
        images = first_images(runner.val_dataloader.dataset, self.num_images).to(autoencoder.last_layer.device)
        was_training = autoencoder.training
        grid = draw_grid(autoencoder_rows(autoencoder.eval(), images))
        autoencoder.train(was_training)
        path = Path(runner.work_dir) / 'pictures' / f'{runner.iter + 1:07d}.png'
        path.parent.mkdir(exist_ok=True)
        grid.save(path)
        runner.visualizer.add_image('autoencoder', np.asarray(grid), step=runner.iter + 1)

    @classmethod
    def smoke(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return two columns."""
        return {**arguments, 'interval': 2, 'num_images': 2}


def first_images(dataset: Dataset, count: int) -> Tensor:
    """Return the first `count` readable images of `dataset`, (count, 3, H, W) in [-1, 1]."""
    images = []
    for index in range(len(dataset)):
        item = dataset[index]
        if 'image' in item:
            images.append(item['image'])
        if len(images) == count:
            break
    return to_float(torch.stack(images))
