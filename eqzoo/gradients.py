"""Balance of two losses by their gradients at one layer (VQGAN, arXiv 2012.09841, Eq. 7)."""

import torch
from torch import Tensor

from eqzoo.distributed import mean_over_processes


def gradient_ratio(loss: Tensor, other: Tensor, parameter: Tensor, maximum: float = 1e4) -> Tensor:
    """Return ‖∇loss‖ / (‖∇other‖ + 1e-4) at `parameter`, a constant scalar in [0, `maximum`].

    The factor on `other` that gives both losses equally large gradients there. The constants are those of
    taming-transformers' `calculate_adaptive_weight`.

    Args:
        loss: A scalar; its graph is kept for the step's own backward pass.
        other: A scalar, of the same step.
        parameter: The weight of a layer on which both depend. Near the end of a network it costs a backward pass
            through the losses alone.
        maximum: Where `other` is flat its gradient vanishes; this and 1e-4 bound the ratio.
    """
    # The ratio is a constant in the loss, so no second-order graph (create_graph) is built.
    gradients = [torch.autograd.grad(each, parameter, retain_graph=True)[0].float() for each in (loss, other)]
    # averaged over processes before the norms are taken: the ratio does not depend on the number of processes
    of_loss, of_other = mean_over_processes(gradients)
    return (of_loss.norm() / (of_other.norm() + 1e-4)).clamp(0, maximum).detach()
