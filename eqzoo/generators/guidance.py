"""Guidance: a prediction pushed away from a worse one."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from eqzoo.registry import GUIDANCES

Network = Callable[[Tensor, Tensor, Tensor], Tensor]


class Guidance:
    """Prediction + (scale - 1) (prediction - worse prediction), at some times.

    Args:
        scale: 1 leaves the prediction as it is.
        interval: The noise times, in [0, 1] with 1 at pure noise, between which there is
            guidance, ends included (arXiv 2404.07724).

    Raises:
        ValueError: If the interval is not within [0, 1], or empty.
    """

    def __init__(self, scale: float, *, interval: tuple[float, float] = (0.0, 1.0)) -> None:
        low, high = interval
        if not 0 <= low < high <= 1:
            raise ValueError(f'{type(self).__name__}.interval: got {interval}; accepted is 0 <= low < high <= 1.')
        self.scale, self.interval = scale, (low, high)

    def guided(self, noise_time: Tensor) -> Tensor:
        """Return the places (G,) of the samples that are guided, for noise times (B,) on the CPU."""
        low, high = self.interval
        inside = (noise_time >= low) & (noise_time <= high)
        return inside.nonzero()[:, 0] if self.scale != 1 else inside.new_empty(0, dtype=torch.int64)


@GUIDANCES.register_module()
class ClassifierFree(Guidance):
    """Away from the prediction for no class: uncond + scale (cond - uncond) (arXiv 2207.12598).

    A learned variance is the conditional one.

    Args:
        scale: See `Guidance`.
        interval: See `Guidance`; (0, 0.7) is REPA's.
        channels: How many of the latent's channels are guided, None all. The published sampling of
            DiT and SiT guides 3 of 4, so `channels=3` gives their numbers.

    Raises:
        ValueError: If there is no channel, or as `Guidance`.
    """

    def __init__(
        self, scale: float, *, interval: tuple[float, float] = (0.0, 1.0), channels: int | None = None
    ) -> None:
        super().__init__(scale, interval=interval)
        if channels is not None and channels < 1:
            raise ValueError(f'ClassifierFree.channels must be at least 1 or None, got {channels}.')
        self.channels = channels

    def __call__(self, network: nn.Module, x: Tensor, times: Tensor, labels: Tensor, noise_time: Tensor) -> Tensor:
        """Return the network's output (B, C or 2C, h, w), guided, in float32.

        Args:
            network: Called once, with samples that are guided twice in the batch.
            x: (B, C, h, w).
            times: (B,), as the network counts them.
            labels: (B,).
            noise_time: (B,) in [0, 1], 1 at pure noise, on the CPU.

        Raises:
            ValueError: If the latents have fewer channels than are to be guided.
        """
        if self.channels is not None and self.channels > network.latent_shape[0]:
            raise ValueError(
                f'ClassifierFree.channels: got {self.channels}; accepted are 1 to {network.latent_shape[0]}, those of '
                'the latents, or None for all.'
            )
        guided = self.guided(noise_time)
        if not len(guided):
            return network(x, times, labels)
        places = guided.to(x.device)
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
    """Away from the prediction of a worse network, for the same class (arXiv 2406.02507).

    Args:
        scale: See `Guidance`.
        network: A smaller network, or an earlier one, with its weights.
        interval: See `Guidance`.
    """

    def __init__(self, scale: float, network: nn.Module, *, interval: tuple[float, float] = (0.0, 1.0)) -> None:
        super().__init__(scale, interval=interval)
        self.network = network.eval().requires_grad_(False)

    def __call__(self, network: nn.Module, x: Tensor, times: Tensor, labels: Tensor, noise_time: Tensor) -> Tensor:
        """Return the network's output (B, C or 2C, h, w), guided; arguments as `ClassifierFree` takes them.

        Raises:
            ValueError: If the worse network is of other latents or classes.
        """
        theirs, ours = ((each.latent_shape, each.num_classes) for each in (self.network, network))
        if theirs != ours:
            raise ValueError(
                f'AutoGuidance.network: of latents {theirs[0]} and {theirs[1]} classes; the generator is of {ours[0]} '
                f'and {ours[1]}; take one of the same autoencoder and data.'
            )
        output, guided = network(x, times, labels).float(), self.guided(noise_time)
        if not len(guided):
            return output
        places = guided.to(x.device)
        worse = self.network.to(x.device)(x[places], times[places], labels[places]).float()
        channels = network.latent_shape[0]
        worse, better = worse[:, :channels], output[places, :channels]
        output[places, :channels] = worse + self.scale * (better - worse)
        return output
