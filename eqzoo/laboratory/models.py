"""The autoencoders to look into, and what to call them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import eqzoo
from eqzoo.autoencoders import Autoencoder, load_autoencoder
from eqzoo.report import run_names


class Model(NamedTuple):
    """An autoencoder in evaluation mode, what to call it, and where it is from."""

    name: str
    source: str
    autoencoder: Autoencoder

    @property
    def num_parameters(self) -> int:
        """How many numbers it has learned."""
        return sum(parameter.numel() for parameter in self.autoencoder.parameters())


def open_models(sources: Sequence[str], names: Sequence[str] | None = None) -> list[Model]:
    """Load autoencoders.

    Args:
        sources: What `eqzoo.load` takes, or the files ENCODER,DECODER of one.
        names: One for each; by default as much of each source as tells it from the others.

    Raises:
        ValueError: If there are not as many different names, a name is not in the zoo, or a file does not fit.
        OSError: If a file is not there, or cannot be downloaded.
    """
    if names is None:
        names = run_names([Path(source) for source in sources])
    names = [name.strip() for name in names]
    if len(names) != len(sources) or len(set(names)) != len(names) or not all(names):
        raise ValueError(
            f'--names: got {", ".join(map(repr, names))} for {len(sources)} models; accepted are as many different '
            'names, separated by commas.'
        )
    return [Model(name, source, _load(source)) for name, source in zip(names, sources, strict=True)]


def _load(source: str) -> Autoencoder:
    if ',' in source and not Path(source).exists():
        return load_autoencoder(source.split(','))
    return eqzoo.load(source)
