"""What an objective hands to the losses."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass
class Comparison:
    """One step's reconstruction beside what it should look like.

    Args:
        target: Images (B, C, H, W) in [-1, 1], transformed if the step is equivariant.
        reconstruction: The decoder's answer, of the same shape.
        posterior: The encoder's distribution over the latents of the untransformed images.
        penalties: Further weighted terms of the objective, scalars by name.
    """

    target: Tensor
    reconstruction: Tensor
    posterior: Any
    penalties: dict[str, Tensor] = field(default_factory=dict)
