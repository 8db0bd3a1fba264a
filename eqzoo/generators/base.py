"""What every generator offers: a loss on a batch of latents, and checks of what it is put together with."""

import copy
import math
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from eqzoo.randomness import SampleStreams
from eqzoo.registry import Requirement
from eqzoo.zoo import weights_requirements


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


class Network(nn.Module):
    """A network with `latent_shape`, `num_classes`, `blocks`, and an argument `weights`."""

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> list[Requirement]:
        """Return the weights file, if a config names one that is not there."""
        return weights_requirements(f'weights of {cls.__name__}', arguments.get('weights'))

    @abstractmethod
    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return the arguments of `forward` for one latent or image."""


def count_macs(network: nn.Module) -> int:
    """Return the multiply-accumulates of a network's forward pass for one latent; papers call them FLOPs.

    Linear layers, convolutions and the two products of attention count (118.6 G of DiT-XL/2);
    activations, norms and sums do not. One pass is run, with zeros for weights that take no memory.

    Args:
        network: A generator's; its `example_inputs` are those of one latent.

    Example:
        >>> from eqzoo.generators.transformer import DiffusionTransformer
        >>> f"{count_macs(DiffusionTransformer('S', 8)) / 1e9:.2f}"
        '0.36'
    """
    with torch.device('cpu'), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # fvcore scripts when imported and traces, which torch calls out of date
        from fvcore.nn import FlopCountAnalysis

        zeros = {id(value): torch.zeros((), dtype=value.dtype).expand(value.shape) for value in network.buffers()}
        zeros |= {id(value): nn.Parameter(torch.zeros(()).expand(value.shape)) for value in network.parameters()}
        shapes = copy.deepcopy(network, zeros).eval()
        counter = FlopCountAnalysis(shapes, network.example_inputs())
        counter.set_op_handle('aten::layer_norm', lambda inputs, outputs: 0)
        counter.set_op_handle('aten::scaled_dot_product_attention', _attention)
        counter.unsupported_ops_warnings(enabled=False).uncalled_modules_warnings(enabled=False)
        return int(counter.total())


def _attention(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Queries by keys, and weights by values."""
    from fvcore.nn.jit_handles import get_shape

    (*batch, queries, width), (*_, keys, _) = get_shape(inputs[0]), get_shape(inputs[1])
    return 2 * math.prod(batch) * queries * keys * width
