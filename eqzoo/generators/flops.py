"""The work of a forward pass, counted as papers count it."""

import copy
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


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
