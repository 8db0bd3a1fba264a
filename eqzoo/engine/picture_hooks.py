"""Picture hooks: grids of reconstructions and of samples during training."""

from collections.abc import Callable
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

from eqzoo.data.loaders import with_reason
from eqzoo.distributed import rank_and_world_size
from eqzoo.engine.ema import averaged_model
from eqzoo.engine.sampling import ImageSampler, batches
from eqzoo.engine.sharding import is_sharded, reshard
from eqzoo.files import save_picture
from eqzoo.images import to_float
from eqzoo.pictures import autoencoder_rows, draw_grid, sample_rows
from eqzoo.registry import HOOKS
from eqzoo.registry.ranges import NonNegativeInt, PositiveInt

_SAMPLES_AT_ONCE = 16


@HOOKS.register_module()
class PictureHook(Hook):
    """Draw input, reconstruction, τ∘x beside D(τ∘E(x)) and latent components every N steps.

    Grids go to `<work_dir>/pictures/<step>.png` and to the visualizer; in joint training to `<step>_autoencoder.png`.

    Args:
        interval: N, in steps; the last step draws a grid too.
        num_images: Columns of the grid: images spread evenly over the validation data.
    """

    priority = 'BELOW_NORMAL'

    def __init__(self, interval: PositiveInt = 1000, num_images: PositiveInt = 8) -> None:
        self.interval = interval
        self.num_images = num_images

    def before_run(self, runner: Runner) -> None:
        """Check that there are images to draw.

        Raises:
            ValueError: If there is no validation data.
        """
        if runner.val_loop is None:
            raise ValueError('PictureHook draws images of val_dataloader, which is missing; add it, or leave it out.')

    @master_only
    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Draw the grid if it is due."""
        if not (self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner)):
            return
        autoencoder = runner.model.autoencoder
        images = example_images(runner.val_dataloader.dataset, self.num_images).to(autoencoder.last_layer.device)
        was_training = autoencoder.training
        grid = draw_grid(autoencoder_rows({'': autoencoder.eval()}, images))
        autoencoder.train(was_training)
        _save_picture(runner, 'autoencoder', grid)

    @classmethod
    def smoke(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return two columns."""
        return {**arguments, 'interval': 2, 'num_images': 2}


@HOOKS.register_module()
class SampleHook(Hook):
    """Draw the same samples every N steps, from the moving average if there is one.

    Classes are spread evenly over all classes, and noise depends only on the seed, so that grids of
    different steps and runs can be compared. They go to `<work_dir>/pictures/<step>.png` and to the
    visualizer; in joint training to `<step>_samples.png`.

    Args:
        sampler: The sampler; fewer steps than those of `sampling.sampler` are enough for a look.
        interval: N, in steps; the last step draws a grid too.
        num_classes: Rows of the grid; fewer if there are fewer classes.
        num_samples: Columns.
        seed: Of the noise.
    """

    priority = 'BELOW_NORMAL'

    def __init__(
        self,
        sampler: Callable[..., Tensor],
        *,
        interval: PositiveInt = 5000,
        num_classes: PositiveInt = 8,
        num_samples: PositiveInt = 8,
        seed: NonNegativeInt = 0,
    ) -> None:
        self.sampler = sampler
        self.interval = interval
        self.num_classes, self.num_samples, self.seed = num_classes, num_samples, seed

    def before_run(self, runner: Runner) -> None:
        """Check before the first step that the sampler fits the generator."""
        self.sampler.check(runner.model.generator)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Draw the grid if it is due."""
        if not (self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner)):
            return
        if rank_and_world_size()[0] and not is_sharded(runner.model):
            return  # whole weights need one process to draw, shards need all
        generator, autoencoder = (averaged_model(runner, name) for name in ('generator', 'autoencoder'))
        were_training = generator.training, autoencoder.training
        classes = generator.num_classes
        chosen = np.linspace(0, classes - 1, min(self.num_classes, classes)).round().astype(int).tolist()
        labels = [label for label in chosen for _ in range(self.num_samples)]
        draw = ImageSampler(
            generator.eval(),
            autoencoder.eval(),
            self.sampler,
            labels=labels,
            seed=self.seed,
            precision=runner.model.precision,
        )
        images = torch.cat([draw(numbers).cpu() for numbers in batches(range(len(labels)), _SAMPLES_AT_ONCE)])
        reshard(generator)
        generator.train(were_training[0])
        autoencoder.train(were_training[1])
        grid = draw_grid(sample_rows(lambda numbers: images[list(numbers)], labels, columns=self.num_samples))
        if rank_and_world_size()[0] == 0:
            _save_picture(runner, 'samples', grid)

    @classmethod
    def smoke(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return two rows of two."""
        return {**arguments, 'interval': 2, 'num_classes': 2, 'num_samples': 2}


def example_images(dataset: Dataset, count: int) -> Tensor:
    """Return up to `count` readable images spread evenly over `dataset`, (B, 3, H, W) in [-1, 1]."""
    places = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int).tolist()
    items = [dataset[place] for place in places]
    images = [item['image'] for item in items if 'image' in item]
    if not images:
        named = [with_reason(each['unreadable'], {each['unreadable']: each.get('reason', '?')}) for each in items]
        raise ValueError(f'{type(dataset).__name__}: none of {len(items)} images can be read: {", ".join(named)}.')
    return to_float(torch.stack(images))


def _save_picture(runner: Runner, name: str, picture: Image.Image) -> None:
    """Write a picture of the step just done to the work directory, and to the visualizer under `name`.

    Its file is named by the step; in joint training, where both hooks draw, by the name too.
    """
    ending = f'_{name}' if len(runner.model.subjects) > 1 else ''
    path = Path(runner.work_dir) / 'pictures' / f'{runner.iter + 1:07d}{ending}.png'
    save_picture(picture, path)
    runner.visualizer.add_image(name, np.asarray(picture), step=runner.iter + 1)
