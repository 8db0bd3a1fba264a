"""The training step of an autoencoder as objectives and penalties see it: encode, quantize, decode."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from eqzoo.randomness import SampleStreams

Noise = Callable[[Tensor], Tensor]  # standard normal noise of the shape of its argument


class ReconstructionPair(NamedTuple):
    """A reconstruction and its target.

    Args:
        target: Images (B, C, H, W) in [-1, 1], transformed if the latents were.
        reconstruction: The decoder's output, of the same shape.
        weight: Factor on the pair's reconstruction loss.
        name: Ending of the pair's entries in the log; the first pair of a step has none.
    """

    target: Tensor
    reconstruction: Tensor
    weight: float = 1.0
    name: str = ''


@dataclass
class LatentStep:
    """One micro-batch on its way: x → posterior → z → codebook → corruptions → decoder.

    An objective calls `encode`, `quantize` and `decode` in this order, and transforms images or latents in between.
    Penalties read what these methods leave here.

    Args:
        autoencoder: The network being trained.
        noise: Draws the noise of latents, a stream per sample.
        corruptions: Change the latents before they are decoded, in this order.
        streams: Draw for the corruptions, a stream per sample; None if there are no corruptions.
        images: (B, C, H, W) in [-1, 1], as they were encoded; set by `encode`.
        posterior: The encoder's distribution of the latents of `images`; set by `encode`.
        latents: z (B, C, h, w) in raw units, drawn from it, before any transform and codebook; set by `encode`.
        penalties: The codebook's weighted terms of the loss, scalars by name.
        reconstruction_loss: Of all pairs, a scalar; known when penalties are computed.
        log: Further scalars for the log, by name.
    """

    autoencoder: Any
    noise: Noise
    corruptions: Sequence[Callable[[Tensor, SampleStreams], Tensor]] = ()
    streams: SampleStreams | None = None
    images: Tensor | None = None
    posterior: Any = None
    latents: Tensor | None = None
    penalties: dict[str, Tensor] = field(default_factory=dict)
    reconstruction_loss: Tensor | None = None
    log: dict[str, Tensor] = field(default_factory=dict)

    def encode(self, images: Tensor) -> Tensor:
        """Encode `images` (B, C, H, W) and return latents (B, C, h, w) drawn from their posterior."""
        self.images, self.posterior = images, self.autoencoder.encode(images)
        mean, std = self.posterior.mean, self.posterior.std
        # without a deviation, as before a codebook, nothing is drawn
        self.latents = mean if std is None else mean + std * self.noise(mean)
        return self.latents

    def quantize(self, latents: Tensor, weight: float = 1.0) -> Tensor:
        """Replace `latents` by their codes, if there is a codebook, and add its penalties, times `weight`."""
        passed = self.autoencoder.bottleneck(latents)
        for name, value in passed.penalties.items():
            value = value if weight == 1 else weight * value
            self.penalties[name] = self.penalties[name] + value if name in self.penalties else value
        return passed.latents

    def decode(self, latents: Tensor) -> Tensor:
        """Corrupt `latents` (B, C, h, w), which have passed the codebook, and return their images (B, C, H, W)."""
        for corrupt in self.corruptions:
            latents = corrupt(latents, self.streams)
        return self.autoencoder.decode_latents(latents)
