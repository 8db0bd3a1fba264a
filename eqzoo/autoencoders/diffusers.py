"""Any autoencoder of diffusers: FLUX.2, DC-AE, Qwen-Image and Wan on one frame, HunyuanImage, RAE."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from eqzoo.autoencoders.base import Autoencoder, Deterministic
from eqzoo.autoencoders.networks import PaddingMode, set_padding
from eqzoo.checkpoints import load_autoencoder_weights
from eqzoo.checkpoints.diffusers_classes import build_class, complete_fields, wrapped_class
from eqzoo.normalization import LatentNormalization, PerChannel
from eqzoo.registry import AUTOENCODERS

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

ClassName = Literal[
    'AutoencoderKL',
    'AutoencoderKLFlux2',
    'AutoencoderDC',
    'AutoencoderKLHunyuanImage',
    'AutoencoderKLQwenImage',
    'AutoencoderKLWan',
    'AutoencoderRAE',
]


@AUTOENCODERS.register_module()
class DiffusersAutoencoder(Autoencoder):
    """An autoencoder of diffusers with its own `encode` and `decode`, and with eqzoo's normalisation of latents.

    Outputs equal those of diffusers' class to the bit, and the state dict is its own plus `normalization.*`.
    `KLAutoencoder`, `VQAutoencoder` and `TinyAutoencoder` are the classes for SD-VAE, FLUX.1's and their kin; this one
    is for all others. `has_posterior` depends on the class: DC-AE and RAE are deterministic.

    - Video autoencoders (Qwen-Image, Wan) see an image as a video of one frame. What such a video does not
      reach, their convolutions over time, is frozen. They clamp images to [-1, 1].
    - FLUX.2's raw latents have 32 channels of 8 x 8 pixels. Its pipeline joins 2 x 2 of these cells and applies the
      batch norm in the weights; in eqzoo its statistics are the normalisation, over all cells of a channel, and they
      are written back on conversion when the normalisation has changed.
    - RAE resizes every image to its encoder's size, and its latents are normalised inside; its encoder is frozen.

    Args:
        class_name: The class in diffusers.
        fields: Arguments of the class, as in its config.json, without the normalisation. Default: diffusers' own.
        padding_mode: See `KLAutoencoder`; only 'zeros' for video autoencoders and RAE.
        scale: See `LatentNormalization`, also for the next three.
        shift: Subtracted from a latent before scaling.
        mean: Mean of the latents, instead of `shift`.
        std: Standard deviation of the latents, instead of `scale`.
        weights: A folder or weights file of diffusers, or a file of eqzoo. One that states its normalisation
            (FLUX.2's files, folders, eqzoo's files) replaces that of the arguments.

    Raises:
        ValueError: If diffusers has no such class or refuses the fields, or the weights do not fit.
        FileNotFoundError: If there is no file `weights`.

    Example:
        >>> fields = dict(block_out_channels=(8, 8, 8, 8), norm_num_groups=4, layers_per_block=1)
        >>> autoencoder = DiffusersAutoencoder('AutoencoderKLFlux2', fields)
        >>> autoencoder.latent_channels, autoencoder.grid(64, 32)
        (32, (8, 4))
    """

    def __init__(
        self,
        class_name: ClassName = 'AutoencoderKLFlux2',
        fields: Mapping[str, Any] | None = None,
        *,
        padding_mode: PaddingMode = 'zeros',
        scale: PerChannel | None = None,
        shift: PerChannel | None = None,
        mean: PerChannel | None = None,
        std: PerChannel | None = None,
        weights: str | Path | Sequence[str | Path] | None = None,
    ) -> None:
        wrapped, complete = wrapped_class(class_name), complete_fields(class_name, fields)
        network = build_class(class_name, fields)
        super().__init__(wrapped.channels(complete), wrapped.factor(complete))
        if padding_mode != 'zeros' and (wrapped.has_frames or wrapped.unit_range):
            raise ValueError(
                f'DiffusersAutoencoder.padding_mode: got {padding_mode!r} for {class_name}, which has no padding of 2D '
                "convolutions alone; expected 'zeros'."
            )
        set_padding(network, padding_mode)
        self.class_name, self.padding_mode = class_name, padding_mode
        self.has_posterior = wrapped.has_posterior
        self._wrapped, self._side = wrapped, wrapped.side(complete) if wrapped.side else None
        # Its parts are ours, so that weights have diffusers' names; the network itself is no submodule.
        for name, part in network.named_children():
            self.add_module(name, part)
        for name, value in network.named_buffers(recurse=False):
            self.register_buffer(name, value)
        self.__dict__['_network'] = network
        self.encoder_parts = tuple(
            name for name in ('encoder', 'quant_conv') if isinstance(self._modules.get(name), nn.Module)
        )
        for name, parameter in self.named_parameters():
            if any(word in name for word in wrapped.unused):
                parameter.requires_grad_(False)
        self.normalization = LatentNormalization(self.latent_channels, scale=scale, shift=shift, mean=mean, std=std)
        if weights is not None:
            load_autoencoder_weights(self, weights)

    def _apply(self, fn: Any, recurse: bool = True) -> 'DiffusersAutoencoder':
        """Move or convert all tensors; the network's own buffers are ours, and are replaced in it as well."""
        super()._apply(fn, recurse)
        self._network._buffers.update({name: self._buffers[name] for name in self._network._buffers})
        return self

    def train(self, mode: bool = True) -> 'DiffusersAutoencoder':
        """Set the mode of all parts, and of the network, which is no part."""
        self._network.training = mode
        return super().train(mode)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the decoder's last layer, for adaptive loss weights."""
        return _last_weight(self.decoder)

    @property
    def latent_layer(self) -> nn.Parameter:
        """The weight of the encoder's last layer, for adaptive weights of penalties on latents."""
        return _last_weight(self.encoder)

    def blocks(self) -> list[nn.Module]:
        """Return the encoder and the parts of the decoder, except the one with the last layer."""
        parts = []
        for part in self.decoder.children():
            parts += list(part) if isinstance(part, nn.ModuleList) else [part]
        last = self.last_layer
        inside = [part for part in parts if any(True for _ in part.parameters())]
        return [self.encoder, *(part for part in inside if not any(each is last for each in part.parameters()))]

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the latent's (h, w) for images of `height` x `width` pixels.

        Raises:
            ValueError: If the sides are not positive multiples of `downsample_factor`, or the class has another size.
        """
        if self._side is not None and (height, width) != (self._side, self._side):
            raise ValueError(
                f'DiffusersAutoencoder: got images of {height} x {width} pixels; {self.class_name} decodes to '
                f'{self._side} x {self._side} alone; expected this size, which also excludes transforms that change it.'
            )
        return super().grid(height, width)

    def encode(self, images: Tensor) -> 'DiagonalGaussianDistribution | Deterministic':
        """Return the posterior of `images` (B, 3, H, W), float in [-1, 1]; its mean is (B, C, h, w), in raw units.

        Raises:
            ValueError: If the images have another shape, or are not floating point.
        """
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        self._check_images(images)
        if self._wrapped.unit_range:
            images = (images + 1) / 2
        encoded = self._network.encode(images[:, :, None] if self._wrapped.has_frames else images)
        dtype = self.last_layer.dtype
        if not self.has_posterior:
            return Deterministic(encoded.latent.to(dtype))
        moments = encoded.latent_dist.parameters
        return DiagonalGaussianDistribution((moments[:, :, 0] if self._wrapped.has_frames else moments).to(dtype))

    def decode_latents(self, z: Tensor) -> Tensor:
        """Return the images (B, 3, H, W) of latents `z` (B, C, h, w)."""
        images = self._network.decode(z[:, :, None] if self._wrapped.has_frames else z).sample
        images = images[:, :, 0] if self._wrapped.has_frames else images
        images = images * 2 - 1 if self._wrapped.unit_range else images
        return images.to(self.last_layer.dtype)

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Shrink the arguments for `--smoke`: same latents and kinds of layers, 5 levels at most, no weights."""
        name = arguments.get('class_name', 'AutoencoderKLFlux2')
        small = wrapped_class(name).shrink(complete_fields(name, arguments.get('fields')))
        known = complete_fields(name, arguments.get('fields'))
        changed = {key: value for key, value in small.items() if value != known[key]}
        return {**arguments, 'fields': {**(arguments.get('fields') or {}), **changed}, 'weights': None}


def _last_weight(network: nn.Module) -> nn.Parameter:
    return [weight for name, weight in network.named_parameters() if name.endswith('weight') and weight.ndim > 1][-1]
