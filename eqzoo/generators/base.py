"""What every generator offers: a loss on a batch of latents, and checks of what it is put together with."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from eqzoo.randomness import SampleStreams


class Generator(nn.Module):
    """A network and the process that it learns to invert, class by class.

    A subclass sets `network`, and says how a batch becomes a loss; how samples are drawn is a
    sampler's business (`eqzoo.generators.samplers`).

    Args:
        network: Predicts something of the process from (noisy latents, time, class), or codes from
            those that are not masked.
    """

    learns: ClassVar[str] = 'latents'
    """'latents', or 'codes' of an autoencoder's codebook."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @property
    def num_classes(self) -> int:
        """K: classes are 0 to K - 1, and K stands for no class."""
        return self.network.num_classes

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape (C, h, w) of a latent; (h, w) of codes."""
        return self.network.latent_shape

    @abstractmethod
    def loss(self, batch: Mapping[str, Any], streams: SampleStreams) -> dict[str, Tensor]:
        """Return 'loss', what is minimised, and its parts for the log: scalars, means over the batch.

        Args:
            batch: `latents` (B, C, h, w) in generator units, drawn from their posteriors, and `labels`
                (B,); with `images` (B, 3, H, W) uint8 or `features` (B, T, D) where the data set has them.
            streams: The samples' random numbers, from which all of time, noise and dropped labels come.
        """
