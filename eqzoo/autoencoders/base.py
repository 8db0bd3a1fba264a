"""Base class of autoencoders, and the two values between encoder and decoder: posterior and bottleneck."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from eqzoo.normalization import LatentNormalization
from eqzoo.registry import Requirement
from eqzoo.zoo import weights_requirements


class Deterministic:
    """The posterior of an encoder without a distribution: a single point.

    VQ and tiny autoencoders return it. It has the `mean` of diffusers' `DiagonalGaussianDistribution`;
    its `std` is None, since nothing is drawn and there is no KL divergence.

    Args:
        mean: The latents (B, C, h, w), in raw units.
    """

    std = None

    def __init__(self, mean: Tensor) -> None:
        self.mean = mean


@dataclass
class Bottleneck:
    """The latents that pass from encoder to decoder, with the penalties on them.

    Args:
        latents: (B, C, h, w) in raw units; quantised, if there is a codebook.
        penalties: Weighted losses of the bottleneck, scalars by name.
        indices: The indices (B, h, w) of the codes, if there is a codebook.
    """

    latents: Tensor
    penalties: dict[str, Tensor] = field(default_factory=dict)
    indices: Tensor | None = None


class Autoencoder(nn.Module):
    """Images to latents and back, with the normalisation of the latents.

    `encode` and `decode` work in the network's raw latent units, `latents` in the normalised
    units of a generator. A subclass sets `normalization` and implements `encode`, `decode_latents`,
    `last_layer`, `blocks` and, if it quantises, `bottleneck`.

    Args:
        latent_channels: C, the channels of a latent.
        downsample_factor: Pixels per side of a latent cell.
    """

    has_posterior = False
    has_codebook = False
    encoder_parts: ClassVar[tuple[str, ...]] = ('encoder',)
    """Names of the modules between images and the decoder's input: frozen when the decoder alone is trained."""
    normalization: LatentNormalization

    def __init__(self, latent_channels: int, downsample_factor: int) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.downsample_factor = downsample_factor

    @property
    @abstractmethod
    def last_layer(self) -> nn.Parameter:
        """The weight of the decoder's last convolution, for adaptive loss weights."""

    @property
    def latent_layer(self) -> nn.Parameter:
        """The weight of the encoder's last convolution, for adaptive weights of penalties on latents."""
        return [module for module in self.encoder.modules() if isinstance(module, nn.Conv2d)][-1].weight

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """Return the modules that can be compiled, in order: all except the decoder's last convolution."""

    @abstractmethod
    def encode(self, images: Tensor) -> Any:
        """Return the posterior of `images` (B, 3, H, W), float in [-1, 1].

        Its `mean` is (B, C, h, w) in raw units; its `std` has the same shape, or is None if nothing is drawn.

        Raises:
            ValueError: If the images have another shape, or are not floating point.
        """

    @abstractmethod
    def decode_latents(self, z: Tensor) -> Tensor:
        """Return the images (B, 3, H, W) of latents `z` (B, C, h, w) that have passed the bottleneck."""

    def bottleneck(self, z: Tensor) -> Bottleneck:
        """Return latents `z` (B, C, h, w) unchanged; an autoencoder with a codebook quantises them here."""
        return Bottleneck(z)

    def decode(self, z: Tensor) -> Tensor:
        """Return the images (B, 3, H, W), about [-1, 1] and unclamped, of latents `z` (B, C, h, w) in raw units.

        Raises:
            ValueError: If the latents have another number of axes or channels.
        """
        self._check_latents(z)
        return self.decode_latents(self.bottleneck(z).latents)

    def latents(self, images: Tensor) -> Tensor:
        """Return the normalised posterior mean (B, C, h, w) of `images` (B, 3, H, W), the input of a generator."""
        return self.normalization.normalize(self.encode(images).mean)

    def complete_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights `state` of a file, completed by weights that can be computed from them."""
        return state

    def finish_step(self, *, is_skipped: bool) -> None:
        """Finish a training step after the optimizer's update, or after the update was left out; nothing by default."""

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the latent's (h, w) for images of `height` x `width` pixels.

        Raises:
            ValueError: If the sides are not positive multiples of `downsample_factor`.
        """
        factor = self.downsample_factor
        if min(height, width) < factor or height % factor or width % factor:
            raise ValueError(
                f'{type(self).__name__}: got images of {height} x {width} pixels; expected positive multiples of '
                f'{factor} on both sides; crop or resize the images.'
            )
        return height // factor, width // factor

    def _check_images(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f'{type(self).__name__}.encode: got images of shape {tuple(images.shape)} and {images.dtype}; expected '
                '(B, 3, H, W), floating point in [-1, 1]; convert uint8 images with images / 127.5 - 1.'
            )
        self.grid(images.shape[2], images.shape[3])

    def _check_latents(self, z: Tensor) -> None:
        if z.ndim != 4 or z.shape[1] != self.latent_channels:
            raise ValueError(
                f'{type(self).__name__}.decode: got latents of shape {tuple(z.shape)}; expected '
                f'(B, {self.latent_channels}, h, w); use the autoencoder that the latents come from.'
            )

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> list[Requirement]:
        """Return the weights files that a config names and that are missing."""
        return weights_requirements(f'weights of {cls.__name__}', arguments.get('weights'))
