"""Evaluators that need latents beside each other, of some of the images."""

from typing import Any

import torch
from torch import Tensor

from eqzoo.evaluators.base import Evaluator
from eqzoo.evaluators.view import AutoencoderView
from eqzoo.randomness import seeded

_SEED = 0


class LatentSample(Evaluator):
    """Keeps the latents of at most `max_images`, drawn once from all, the same ones for any batches and processes.

    `latents` returns them (N, C, h, w), float32, in the order of the data set, to `compute`; on the GPU
    if that is where they came from.

    Args:
        max_images: How many are kept.
        min_images: Fewer in the data set are refused.
    """

    def __init__(self, max_images: int, min_images: int) -> None:
        super().__init__()
        if not 0 < min_images <= max_images:
            raise ValueError(
                f'{type(self).__name__}: max_images must be at least min_images, '
                f'got max_images={max_images}, min_images={min_images}.'
            )
        self.max_images, self.min_images = max_images, min_images
        self._chosen: Tensor | None = None
        self._device = torch.device('cpu')

    def check(self, num_images: int) -> None:
        """Draw which images are kept."""
        self._chosen = torch.zeros(num_images, dtype=torch.bool)
        self._chosen[torch.randperm(num_images, generator=seeded(_SEED, num_images))[: self.max_images]] = True

    def update(self, view: AutoencoderView) -> None:
        """Keep the latents of those among a batch that were drawn; of all, if `check` was not called."""
        numbers, latents = view.numbers.cpu(), view.latents.float()
        chosen = torch.ones(len(numbers), dtype=torch.bool) if self._chosen is None else self._chosen[numbers]
        if latents.is_cuda:
            self._device = latents.device
        self.keep('latents', latents.cpu()[chosen], numbers[chosen])

    def latents(self) -> Tensor:
        """Return what was kept, over all processes."""
        return self.kept['latents'].to(self._device)

    def card(self) -> dict[str, Any]:
        """Say what the latents are."""
        return {'latent': 'posterior mean in generator units', 'max_images': self.max_images}
