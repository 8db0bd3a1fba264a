"""Build the autoencoder that a file holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from eqzoo.autoencoders.arguments import NORMALIZATION, foreign_types, plain_config
from eqzoo.autoencoders.base import Autoencoder
from eqzoo.autoencoders.infer import infer_config
from eqzoo.autoencoders.normalization import LatentNormalization
from eqzoo.autoencoders.stored import Stored, read_stored
from eqzoo.autoencoders.weights import check_fit, load_stored
from eqzoo.registry import AUTOENCODERS, build


def load_autoencoder(source: str | Path, config: Mapping[str, Any] | None = None) -> Autoencoder:
    """Return the autoencoder of a file or folder, in eval mode, on the CPU and in float32.

    Args:
        source: What `read_stored` accepts.
        config: `type` and arguments; where not given, the file's own, else what names and
            shapes of its weights tell. Its normalisation holds where the file states none.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read safely, its architecture cannot be told, or it does
            not fit the config.
    """
    stored = read_stored(source)
    chosen = _choose_config(stored, source, config)
    autoencoder = build({key: value for key, value in chosen.items() if key != 'weights'})
    load_stored(autoencoder, stored, source)
    return autoencoder.eval()


def complete(stored: Stored, source: Any, config: Mapping[str, Any] | None = None) -> Stored:
    """Return `stored` with its config, checked against its weights, and a normalisation if any is stated.

    Args:
        stored: What was read.
        source: From where, for messages.
        config: Replaces the config that the file states; its normalisation does not.

    Raises:
        ValueError: If weights are missing or unexpected, or the architecture cannot be told.
    """
    chosen = _choose_config(stored, source, config)
    stated = {key: chosen[key] for key in NORMALIZATION if chosen.get(key) is not None}
    stored.config = plain_config(chosen)
    if stated and not stored.normalization:
        normalize(stored, stated)
    with torch.device('meta'):
        wanted = build(stored.config).state_dict()
    if not stored.normalization:
        wanted = {key: value for key, value in wanted.items() if not key.startswith('normalization.')}
    for state in filter(None, (stored.state, stored.trained)):
        check_fit(state, wanted, f'convert: {source}')
    return stored


def normalize(stored: Stored, arguments: Mapping[str, Any]) -> None:
    """Set the normalisation of `stored`, also of its trained weights, as `LatentNormalization` takes it."""
    buffers = LatentNormalization(stored.config['latent_channels'], **arguments).state_dict()
    for state in filter(None, (stored.state, stored.trained)):
        state.update({f'normalization.{key}': value for key, value in buffers.items()})


def _choose_config(stored: Stored, source: Any, config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the given config, else the file's, else the inferred one.

    A config can name anything that can be imported and called, so one that comes with a file
    may name eqzoo's registered components only, and classes that the user has imported.
    """
    if config is not None or stored.config is None:
        return config or infer_config(stored.state)
    foreign = foreign_types(stored.config)
    if foreign:
        raise ValueError(
            f'weights: {str(source)!r} says that it needs {", ".join(map(repr, foreign))}; accepted from a file are '
            f'registered autoencoders ({", ".join(AUTOENCODERS.names())}) and parts; import the module that has it '
            'first, or give a config.'
        )
    return stored.config
