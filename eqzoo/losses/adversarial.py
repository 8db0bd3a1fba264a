"""The adversarial term: a patch discriminator, hinge losses and the adaptive weight."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from taming.modules.discriminator.model import NLayerDiscriminator, weights_init
from torch import Tensor, nn

from eqzoo.distributed import average
from eqzoo.registry import LOSSES, MODELS, Requirement
from eqzoo.zoo import weights_requirements


@MODELS.register_module()
class PatchGAN(nn.Module):
    """Judge overlapping patches as real or not: pix2pix's discriminator, taming's code.

    Args:
        num_layers: Strided convolutions; 3 in LDM, a receptive field of 70 pixels.
        width: Channels of the first one.
        in_channels: Channels of the images.
        weights: A file or folder that holds a trained one beside its autoencoder, as eqzoo's
            checkpoints and exports, LDM's and taming's files do. Default: a new one.

    Raises:
        ValueError: If the file has none, or one of another shape.
        FileNotFoundError: If there is no such file.
    """

    def __init__(
        self, num_layers: int = 3, width: int = 64, *, in_channels: int = 3, weights: str | Path | None = None
    ) -> None:
        super().__init__()
        self.num_layers = num_layers
        self.min_size = 3 * 2**num_layers  # halved num_layers times, then two convolutions take a pixel each
        self.network = NLayerDiscriminator(in_channels, ndf=width, n_layers=num_layers).apply(weights_init)
        if weights is not None:
            # Here, not at the top: only a trained discriminator needs what reads an autoencoder's file.
            from eqzoo.checkpoints import check_tensors, read_autoencoder

            state = read_autoencoder(weights).discriminator
            check_tensors(state, self.state_dict(), f'PatchGAN.weights: the discriminator of {str(weights)!r}')
            self.load_state_dict(state)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, 1, h, w), positive for real.

        Raises:
            ValueError: If the images (B, C, H, W) are too small to give one logit.
        """
        if min(images.shape[-2:]) < self.min_size:
            raise ValueError(
                f'PatchGAN with {self.num_layers} layers needs images of at least {self.min_size} pixels, '
                f'got {tuple(images.shape[-2:])} (the smallest scale of the transform decides); lower num_layers.'
            )
        return self.network(images)

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return a discriminator for the smallest images of a smoke run."""
        return {**arguments, 'num_layers': 1, 'width': 8, 'weights': None}

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> list[Requirement]:
        """Return the weights file, if a config names one that is not there."""
        return weights_requirements('weights of PatchGAN', arguments.get('weights'))


@LOSSES.register_module()
class AdversarialLoss(nn.Module):
    """Hinge losses of a discriminator, weighed against the reconstruction (VQGAN, Eq. 6-7).

    Args:
        discriminator: Images (B, C, H, W) → logits.
        weight: Factor on the adaptive weight; 0.5 in LDM and EQ-VAE.
        start_step: First step that uses it; before, neither loss is computed. 0 in EQ-VAE,
            50,001 in LDM.
        adaptive: Whether the weight also balances the two gradients at the decoder's last
            layer.
    """

    def __init__(
        self, discriminator: nn.Module, weight: float = 0.5, *, start_step: int = 0, adaptive: bool = True
    ) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.weight = weight
        self.start_step = start_step
        self.adaptive = adaptive

    def generator_loss(
        self, reconstruction: Tensor, reconstruction_loss: Tensor, last_layer: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the autoencoder's weighted loss and the weight, both scalars.

        Args:
            reconstruction: Images (B, C, H, W) from the decoder.
            reconstruction_loss: The scalar to balance against.
            last_layer: The decoder's last weight, where the gradients are compared.
        """
        loss = -self.discriminator(reconstruction).mean()
        weight = torch.as_tensor(self.weight, device=loss.device, dtype=loss.dtype)
        if self.adaptive:
            weight = weight * _balance(reconstruction_loss, loss, last_layer)
        return weight * loss, weight

    def discriminator_loss(self, reconstruction: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the discriminator's hinge loss and mean logits, for detached images (B, C, H, W)."""
        real, fake = self.discriminator(target), self.discriminator(reconstruction)
        loss = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
        return loss, {'logits_real': real.detach().mean(), 'logits_fake': fake.detach().mean()}


def _balance(reconstruction_loss: Tensor, adversarial_loss: Tensor, last_layer: Tensor) -> Tensor:
    """Return the ratio of the gradients' norms at the last layer, in [0, 1e4] (VQGAN, Eq. 7).

    Over several processes the gradients are averaged first, so that their number changes
    nothing.
    """
    wanted, given = (
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].float()
        for loss in (reconstruction_loss, adversarial_loss)
    )
    wanted, given = average([wanted, given])
    return (wanted.norm() / (given.norm() + 1e-4)).clamp(0, 1e4).detach()
