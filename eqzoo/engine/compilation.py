"""torch.compile for autoencoders, leaving out what the adaptive weight looks at."""

import torch._functorch.config

from eqzoo.autoencoders import Autoencoder


def compile_autoencoder(autoencoder: Autoencoder) -> None:
    """Compile encoder and decoder in place, block by block; names of weights stay.

    The decoder's last convolution stays eager: a compiled module is one node of autograd, so
    the gradient at a layer inside would run its whole backward twice a step. Sizes change
    from step to step with the transform's scale; torch recompiles once and then keeps them
    dynamic.
    """
    # The adaptive weight differentiates a graph twice, which torch < 2.12 refuses otherwise.
    torch._functorch.config.donated_buffer = False
    for block in autoencoder.blocks():
        block.compile()
