"""What every generator's network offers beside its `forward`."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from eqzoo.registry import Requirement
from eqzoo.zoo import cached, fetch_command


class Network(nn.Module):
    """A network with `latent_shape`, `num_classes`, `blocks`, and an argument `weights`."""

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> list[Requirement]:
        """Return the weights file, if a config names one that is not there."""
        file = arguments.get('weights')
        if file is None or cached(file) is not None:
            return []
        return [Requirement(f'weights of {cls.__name__}', str(file), fetch_command(file) or 'weights=PATH')]

    @abstractmethod
    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return the arguments of `forward` for one latent or image."""
