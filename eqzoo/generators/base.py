"""Base classes of generators and their networks, checks that they share, and the count of multiply-accumulates."""

import copy
import math
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from eqzoo.randomness import SampleStreams
from eqzoo.registry import Requirement
from eqzoo.zoo import weights_requirements


class Generator(nn.Module):
    """A network with the class-conditional process that it learns to invert.

    A subclass turns a batch into a loss. Samples are drawn by a sampler (`eqzoo.generators.samplers`).

    Args:
        network: Maps (noisy latents, times, labels) to the process's prediction, or (masked codes, labels) to logits.
    """

    learns: ClassVar[str] = 'latents'
    """Contents of a batch: 'latents', or 'codes' of an autoencoder's codebook."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @property
    def num_classes(self) -> int:
        """K. Labels are 0 to K - 1; K stands for no class."""
        return self.network.num_classes

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent (C, h, w), or of one image's codes (h, w)."""
        return self.network.latent_shape

    @abstractmethod
    def loss(self, batch: Mapping[str, Any], streams: SampleStreams) -> dict[str, Tensor]:
        """Return 'loss', which is minimised, and its parts for the log: scalars, means over the batch.

        Args:
            batch: `latents` (B, C, h, w) in generator units, drawn from their posteriors, and `labels` (B,);
                also `images` (B, 3, H, W) uint8 or `features` (B, T, D) if the dataset has them.
            streams: One random stream per sample. Times, noise and dropped labels all come from it.
        """


class Network(nn.Module):
    """Base class of networks. A subclass has `latent_shape`, `num_classes`, `blocks`, and an argument `weights`."""

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> list[Requirement]:
        """Return the weights file, if a config names one that is not there."""
        return weights_requirements(f'weights of {cls.__name__}', arguments.get('weights'))

    @abstractmethod
    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return the arguments of `forward` for one latent, or for the codes of one image."""


class CodeNetwork(Network):
    """Base class of transformers of codes.

    A subclass has `latent_shape`, `num_codes`, `num_classes`, `checkpointing` and `transformer`, with its `layers`.
    """

    @property
    def mask_code(self) -> int:
        """K, which stands for a masked code."""
        return self.num_codes

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer's blocks."""
        return self.transformer['layers']

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return the arguments of `forward` for the codes of one image."""
        return torch.full((1, *self.latent_shape), self.mask_code), torch.zeros(1, dtype=torch.int64)

    def run_blocks(self, tokens: Tensor, *conditions: Tensor) -> Tensor:
        """Apply all blocks to tokens (B, T, D), with activation checkpointing if it is on."""
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, *conditions, use_reentrant=False)
            else:
                tokens = block(tokens, *conditions)
        return tokens

    def check_inputs(self, codes: Tensor, labels: Tensor) -> None:
        """Check codes (B, h, w) and labels (B,).

        Raises:
            ValueError: If the codes have another shape or, on the CPU, a label is out of range.
        """
        if codes.shape[1:] != self.latent_shape:
            raise ValueError(
                f'{type(self).__name__}: got codes of shape {tuple(codes.shape)}; expected '
                f'(B, {self.latent_shape[0]}, {self.latent_shape[1]}).'
            )
        check_labels(labels, self.num_classes)


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Check that `labels` (B,) on the CPU are classes, 0 to `num_classes` - 1, or `num_classes`, which is no class.

    Labels on another device pass: reading them would wait for the device, and an embedding's lookup fails by itself.
    So do fake tensors, which have no values.

    Raises:
        ValueError: If a label is out of range; names one.
    """
    is_readable = labels.device.type == 'cpu' and type(labels) is Tensor
    if not is_readable or torch.compiler.is_compiling() or not len(labels):
        return
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most > num_classes:
        wrong = most if most > num_classes else least
        raise ValueError(f'labels: got {wrong}; expected 0 to {num_classes - 1}, or {num_classes} for no class.')


def drop_labels(labels: Tensor, uniform: Tensor, probability: float, num_classes: int) -> Tensor:
    """Replace `labels` (B,) by `num_classes`, no class, where `uniform` (B,) is below `probability`."""
    # in these small copies the host need not wait for the device
    return labels.masked_fill(uniform.to(labels.device, non_blocking=True) < probability, num_classes)


def count_macs(network: nn.Module) -> int:
    """Count the multiply-accumulates of one forward pass for one latent, which papers report as FLOPs.

    Linear layers, convolutions and the two matrix products of attention count (118.6 G for DiT-XL/2);
    activations, norms and sums do not.

    Args:
        network: A generator's network, with `example_inputs`.

    Example:
        >>> from eqzoo.generators.transformer import DiffusionTransformer
        >>> f"{count_macs(DiffusionTransformer('S', 8)) / 1e9:.2f}"
        '0.36'
    """
    with torch.device('cpu'), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # fvcore uses torch.jit's scripting and tracing, which torch deprecates
        from fvcore.nn import FlopCountAnalysis

        # a copy whose weights are zeros of stride 0: XL networks are traced without their memory
        zeros = {id(value): torch.zeros((), dtype=value.dtype).expand(value.shape) for value in network.buffers()}
        zeros |= {id(value): nn.Parameter(torch.zeros(()).expand(value.shape)) for value in network.parameters()}
        shapes = copy.deepcopy(network, zeros).eval()
        counter = FlopCountAnalysis(shapes, network.example_inputs())
        counter.set_op_handle('aten::layer_norm', lambda inputs, outputs: 0)
        counter.set_op_handle('aten::scaled_dot_product_attention', _attention)
        counter.unsupported_ops_warnings(enabled=False).uncalled_modules_warnings(enabled=False)
        return int(counter.total())


def _attention(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Count the products of queries by keys and of attention weights by values; fvcore knows no fused attention."""
    from fvcore.nn.jit_handles import get_shape

    (*batch, queries, width), (*_, keys, _) = get_shape(inputs[0]), get_shape(inputs[1])
    return 2 * math.prod(batch) * queries * keys * width
