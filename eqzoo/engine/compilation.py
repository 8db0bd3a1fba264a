"""torch.compile for what is trained."""

from collections.abc import Iterable

import torch._functorch.config
from torch import nn


def compile_blocks(blocks: Iterable[nn.Module]) -> None:
    """Compile modules in place, each for itself; names of weights stay.

    Sizes may change from step to step, with a transform's scale; torch recompiles once and
    then keeps them dynamic.
    """
    # An autoencoder's adaptive weight differentiates a graph twice, which torch < 2.12 refuses otherwise.
    torch._functorch.config.donated_buffer = False
    for block in blocks:
        block.compile()
