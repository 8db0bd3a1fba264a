"""What an autoencoder makes of one batch, computed once for all evaluators."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from eqzoo.randomness import SampleNoise


class AutoencoderView:
    """One batch of images as an autoencoder sees and returns them.

    Args:
        autoencoder: In evaluation mode.
        images: (B, 3, H, W), float in [-1, 1], on the autoencoder's device.
        numbers: The images' places in their data set (B,); 0, 1, … if left out.

    Raises:
        ValueError: By the properties, if latents or a reconstruction are not finite.
    """

    def __init__(self, autoencoder: Any, images: Tensor, numbers: Tensor | None = None) -> None:
        self.autoencoder = autoencoder
        self.images = images
        self.numbers = torch.arange(len(images)) if numbers is None else numbers

    @cached_property
    def latents(self) -> Tensor:
        """The posterior mean (B, C, h, w) in generator units."""
        with torch.no_grad():
            return _finite('latents', self.autoencoder.latents(self.images), self.numbers)

    @cached_property
    def reconstruction(self) -> Tensor:
        """The images decoded from the posterior mean, (B, 3, H, W), unclamped."""
        with torch.no_grad():
            return _finite('reconstruction', self.autoencoder.decode(self._raw_latents), self.numbers)

    @cached_property
    def sampled_reconstruction(self) -> Tensor:
        """The images decoded from a sample of the posterior, whose noise belongs to the image's number."""
        with torch.no_grad():
            posterior = self.autoencoder.encode(self.images)
            if posterior.std is None:
                return self.reconstruction
            noise = SampleNoise(0, self.numbers)(posterior.mean)
            latents = posterior.mean + posterior.std * noise
            return _finite('reconstruction', self.autoencoder.decode(latents), self.numbers)

    @cached_property
    def indices(self) -> Tensor | None:
        """The codes (B, h, w) chosen, if there is a codebook."""
        with torch.no_grad():
            return self.autoencoder.bottleneck(self._raw_latents).indices

    @property
    def _raw_latents(self) -> Tensor:
        return self.autoencoder.normalization.denormalize(self.latents)


class SampleView:
    """One batch of images that stand for themselves, such as a generator's samples.

    Args:
        images: (B, 3, H, W), float in [-1, 1], finite.
        numbers: The images' places in their set (B,).

    Raises:
        ValueError: If an image is not finite.
    """

    def __init__(self, images: Tensor, numbers: Tensor) -> None:
        self.images = _finite('pixels', images, numbers)
        self.numbers = numbers


def _finite(what: str, values: Tensor, numbers: Tensor) -> Tensor:
    """Return `values` (B, ...) if all are finite."""
    finite = values.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        raise ValueError(
            f'evaluation: NaN or infinite values in the {what} of image {int(numbers[~finite.cpu()][0])}; metrics need '
            'finite ones. The weights are damaged, training diverged, or the precision is too low (use fp32).'
        )
    return values
