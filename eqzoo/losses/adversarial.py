"""Adversarial loss: a patch discriminator, hinge losses and the adaptive weight."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from taming.modules.discriminator.model import NLayerDiscriminator, weights_init
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from eqzoo.gradients import gradient_ratio
from eqzoo.losses.apart import with_gradients
from eqzoo.losses.stabilization import DiffAug, DiscriminatorStep, mean_of_maps
from eqzoo.randomness import SampleStreams
from eqzoo.registry import LOSSES, MODELS, Requirement
from eqzoo.registry.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt
from eqzoo.zoo import weights_requirements


@MODELS.register_module()
class PatchGAN(nn.Module):
    """Patch discriminator: one logit for each of many overlapping patches (arXiv 1611.07004; taming's code).

    Args:
        num_layers: Number of strided convolutions; 3 in LDM, for a receptive field of 70 pixels.
        width: Channels of the first convolution.
        in_channels: Channels of the images.
        weights: A file or folder with a trained discriminator beside its autoencoder: checkpoints and exports
            of eqzoo, files of LDM and taming. Default: random weights.

    Raises:
        ValueError: If the file has no discriminator, or one of another shape.
        FileNotFoundError: If the file does not exist.
    """

    def __init__(
        self,
        num_layers: PositiveInt = 3,
        width: PositiveInt = 64,
        *,
        in_channels: PositiveInt = 3,
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.num_layers = num_layers
        # num_layers convolutions halve the image, the two after them take a pixel each
        self.min_size = 3 * 2**num_layers
        self.network = NLayerDiscriminator(in_channels, ndf=width, n_layers=num_layers).apply(weights_init)
        if weights is not None:
            # imported here: only a trained discriminator needs the reader of autoencoders' files
            from eqzoo.checkpoints import check_tensors, read_autoencoder

            state = read_autoencoder(weights).discriminator
            check_tensors(state, self.state_dict(), f'PatchGAN.weights: the discriminator of {str(weights)!r}')
            self.load_state_dict(state)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, 1, h, w) for images (B, C, H, W) in [-1, 1]; positive means real.

        Raises:
            ValueError: If the images are too small for one logit.
        """
        if min(images.shape[-2:]) < self.min_size:
            raise ValueError(
                f'PatchGAN with {self.num_layers} layers: got images of {tuple(images.shape[-2:])}; expected at least '
                f'{self.min_size} pixels a side, also at the smallest scale of the transform; lower num_layers.'
            )
        return self.network(images)

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments for the small images of a smoke run."""
        return {**arguments, 'num_layers': 1, 'width': 8, 'weights': None}

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> list[Requirement]:
        """Return the weights file, if a config names one that is not there."""
        return weights_requirements('weights of PatchGAN', arguments.get('weights'))


@LOSSES.register_module()
class AdversarialLoss(nn.Module):
    """Hinge losses of autoencoder and discriminator, with VQGAN's adaptive weight (arXiv 2012.09841, Eq. 6-7).

    Of a discriminator with several maps of logits, each map counts the same.

    Args:
        discriminator: Maps images (B, C, H, W) to logits, or to a list of several maps of them.
        weight: Factor on the adaptive weight; 0.5 in LDM and EQ-VAE.
        start_step: First training step with this loss; before, neither part is computed. 0 in EQ-VAE, 50,001 in LDM.
        adaptive: Whether the weight also balances the gradients of both losses at the decoder's last layer.
        penalties: Terms of the discriminator's loss: `R1`, `LeCam`.
        augmentation: What changes all images before the discriminator sees them: `DiffAug`.
        micro_batch_size: Images that the discriminator sees at once. The autoencoder's loss is then computed with its
            gradient: less memory, with an adaptive weight less time, and gradients that differ by rounding
            (docs/training.md). A discriminator with statistics of batches (PatchGAN) still sees whole batches.
            None: the whole batch, kept for the backward pass.
    """

    def __init__(
        self,
        discriminator: nn.Module,
        weight: NonNegativeFloat = 0.5,
        *,
        start_step: NonNegativeInt = 0,
        adaptive: bool = True,
        penalties: Sequence[Callable[[DiscriminatorStep], Tensor | None]] = (),
        augmentation: DiffAug | None = None,
        micro_batch_size: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.weight = weight
        self.start_step = start_step
        self.adaptive = adaptive
        self.penalties = tuple(penalties)
        self.augmentation = augmentation
        self.micro_batch_size = micro_batch_size
        for number, each in enumerate(self.penalties):
            if isinstance(each, nn.Module):  # its averages are found under this name
                self.add_module(f'penalty_{number}', each)

    def generator_loss(
        self,
        reconstruction: Tensor,
        reconstruction_loss: Tensor,
        last_layer: Tensor,
        streams: SampleStreams | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the autoencoder's weighted loss and the weight, both scalars.

        Args:
            reconstruction: Images (B, C, H, W) in [-1, 1] from the decoder.
            reconstruction_loss: The scalar to balance against.
            last_layer: Weight of the decoder's last layer, where the gradients are compared.
            streams: Draws for the augmentation, a stream per image.
        """
        loss = -self._mean_logits(reconstruction, streams)
        weight = loss.new_full((), self.weight)
        if self.adaptive:
            weight = weight * gradient_ratio(reconstruction_loss, loss, last_layer)
        return weight * loss, weight

    def discriminator_loss(
        self, reconstruction: Tensor, target: Tensor, streams: SampleStreams | None = None, step: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the discriminator's loss, a scalar, and values for the log, for detached images (B, C, H, W).

        Args:
            reconstruction: From the decoder.
            target: What it should look like.
            streams: Draws for the augmentation, a stream per image.
            step: The training step, from 0.

        Returns:
            The hinge loss plus penalties; and the mean logits, with each penalty by its name.
        """
        real, fake = self._logits(target, streams), self._logits(reconstruction, streams)
        loss = 0.5 * (
            mean_of_maps(real, lambda logits: F.relu(1 - logits).mean())
            + mean_of_maps(fake, lambda logits: F.relu(1 + logits).mean())
        )
        parts = {
            'logits_real': mean_of_maps(real, torch.mean).detach(),
            'logits_fake': mean_of_maps(fake, torch.mean).detach(),
        }
        for penalty in self.penalties:
            value = penalty(DiscriminatorStep(self._plain_logits, target, real, fake, step))
            if value is not None:
                loss = loss + value
                parts[getattr(penalty, 'name', type(penalty).__name__.lower())] = value.detach()
        return loss, parts

    def micro_batches(self, size: int) -> list[slice]:
        """Return the parts of `size` images that the discriminator sees at once."""
        has_statistics = any(isinstance(each, _BatchNorm) for each in self.discriminator.modules())
        step = size if self.micro_batch_size is None or has_statistics else self.micro_batch_size
        return [slice(start, min(start + step, size)) for start in range(0, size, step)]

    def end_step(self, logits_real: Tensor, logits_fake: Tensor) -> None:
        """Let penalties with averages take in a step's mean logits, scalars over all its micro-batches."""
        for penalty in self.penalties:
            if hasattr(penalty, 'update'):
                penalty.update(logits_real, logits_fake)

    def _mean_logits(self, images: Tensor, streams: SampleStreams | None) -> Tensor:
        if self.micro_batch_size is None:
            return mean_of_maps(self._logits(images, streams), torch.mean)
        draws = None if self.augmentation is None else self.augmentation.sample(streams)

        def of_each(piece: Tensor, part: slice) -> Tensor:
            seen = piece if draws is None else self.augmentation(piece, draws[part])
            return mean_of_maps(self._plain_logits(seen), lambda logits: logits.flatten(1).mean(dim=1))

        return with_gradients(of_each, images, self.micro_batches(len(images))[0].stop).mean()

    def _logits(self, images: Tensor, streams: SampleStreams | None) -> Sequence[Tensor]:
        if self.augmentation is not None:
            images = self.augmentation(images, self.augmentation.sample(streams))
        return self._plain_logits(images)

    def _plain_logits(self, images: Tensor) -> Sequence[Tensor]:
        logits = self.discriminator(images)
        return [logits] if isinstance(logits, Tensor) else logits
