"""Guidance: pushing a prediction away from a worse one."""

import torch
from torch import Tensor, nn

from eqzoo.registry import GUIDANCES
from eqzoo.registry.ranges import PositiveInt


class Guidance:
    """Base class: prediction + (scale - 1) (prediction - worse prediction), within an interval of noise times.

    Args:
        scale: 1 leaves the prediction unchanged.
        interval: Noise times in [0, 1], 1 at pure noise, between which guidance is applied, ends
            included (arXiv 2404.07724).

    Raises:
        ValueError: If the interval is empty or not within [0, 1].
    """

    def __init__(self, scale: float, *, interval: tuple[float, float] = (0.0, 1.0)) -> None:
        low, high = interval
        if not 0 <= low < high <= 1:
            raise ValueError(f'{type(self).__name__}.interval: got {interval}; expected 0 <= low < high <= 1.')
        self.scale, self.interval = scale, (low, high)

    def check(self, network: nn.Module) -> None:
        """Check that this guidance is for a network.

        Raises:
            ValueError: If it is not.
        """

    def guided(self, noise_time: Tensor) -> Tensor:
        """Return the indices (G,) of the samples to guide, for noise times (B,) on the CPU."""
        low, high = self.interval
        inside = (noise_time >= low) & (noise_time <= high)
        return inside.nonzero()[:, 0] if self.scale != 1 else inside.new_empty(0, dtype=torch.int64)


@GUIDANCES.register_module()
class ClassifierFree(Guidance):
    """Guidance away from the unconditional prediction: uncond + scale (cond - uncond) (arXiv 2207.12598).

    A learned variance is not guided: it stays the conditional one.

    Args:
        scale: See `Guidance`.
        interval: See `Guidance`; REPA uses (0, 0.7).
        channels: Number of latent channels that are guided, None for all. The published samples of DiT and
            SiT guide 3 of 4: `channels=3` reproduces their numbers.

    Raises:
        ValueError: If `channels` is below 1, or as `Guidance`.
    """

    def __init__(
        self, scale: float, *, interval: tuple[float, float] = (0.0, 1.0), channels: PositiveInt | None = None
    ) -> None:
        super().__init__(scale, interval=interval)
        self.channels = channels

    def check(self, network: nn.Module) -> None:
        """Check that the latents have `channels` channels.

        Raises:
            ValueError: If they have fewer.
        """
        if self.channels is not None and self.channels > network.latent_shape[0]:
            raise ValueError(
                f'ClassifierFree.channels: got {self.channels}; expected 1 to {network.latent_shape[0]}, the number of '
                'latent channels, or None for all.'
            )

    def __call__(self, network: nn.Module, x: Tensor, times: Tensor, labels: Tensor, noise_time: Tensor) -> Tensor:
        """Return the network's guided output (B, C or 2C, h, w), float32.

        Args:
            network: Called once; guided samples are in its batch twice.
            x: (B, C, h, w).
            times: (B,), as the network counts them.
            labels: (B,).
            noise_time: (B,) in [0, 1], 1 at pure noise, on the CPU.

        Raises:
            ValueError: As `check`.
        """
        self.check(network)
        guided = self.guided(noise_time)
        if not len(guided):
            return network(x, times, labels)
        places = guided.to(x.device, non_blocking=True)
        # one forward pass: all samples, then the guided ones again without their class
        nothing = torch.full_like(labels[places], network.num_classes)
        inputs = zip((x, times, labels), (x[places], times[places], nothing), strict=True)
        output = network(*(torch.cat(pair) for pair in inputs)).float()
        output, unconditional = output[: len(x)], output[len(x) :]
        channels = self.channels or network.latent_shape[0]
        worse, better = unconditional[:, :channels], output[places, :channels]
        output[places, :channels] = worse + self.scale * (better - worse)
        return output


@GUIDANCES.register_module()
class AutoGuidance(Guidance):
    """Guidance away from a worse network's prediction for the same class (arXiv 2406.02507).

    Args:
        scale: See `Guidance`.
        network: A smaller network, or an earlier one, with its weights.
        interval: See `Guidance`.
    """

    def __init__(self, scale: float, network: nn.Module, *, interval: tuple[float, float] = (0.0, 1.0)) -> None:
        super().__init__(scale, interval=interval)
        self.network = network.eval().requires_grad_(False)

    def check(self, network: nn.Module) -> None:
        """Check that the worse network is for the same latents and classes.

        Raises:
            ValueError: If it is not.
        """
        theirs, ours = ((each.latent_shape, each.num_classes) for each in (self.network, network))
        if theirs != ours:
            raise ValueError(
                f'AutoGuidance.network: got latents {theirs[0]} and {theirs[1]} classes; expected those of the '
                f'generator, {ours[0]} and {ours[1]}; use a network for the same autoencoder and data.'
            )

    def __call__(self, network: nn.Module, x: Tensor, times: Tensor, labels: Tensor, noise_time: Tensor) -> Tensor:
        """Return the network's guided output (B, C or 2C, h, w), float32; arguments as of `ClassifierFree`.

        Raises:
            ValueError: As `check`.
        """
        self.check(network)
        output, guided = network(x, times, labels).float(), self.guided(noise_time)
        if not len(guided):
            return output
        places = guided.to(x.device, non_blocking=True)
        worse = self.network.to(x.device)(x[places], times[places], labels[places]).float()
        channels = network.latent_shape[0]
        worse, better = worse[:, :channels], output[places, :channels]
        output[places, :channels] = worse + self.scale * (better - worse)
        return output
