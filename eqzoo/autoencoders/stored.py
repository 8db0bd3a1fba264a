"""Everything that a file or folder says of an autoencoder, whatever its format."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eqzoo.autoencoders.diffusers_config import CLASSES
from eqzoo.autoencoders.diffusers_folder import read_folder
from eqzoo.autoencoders.files import listed, read_file
from eqzoo.autoencoders.keys import to_diffusers
from eqzoo.autoencoders.nests import below, split_parts, unnest
from eqzoo.zoo import located

Source = str | Path | Sequence[str | Path]


@dataclass
class Stored:
    """An autoencoder as files hold it.

    Args:
        state: The weights to use, the average where there is one, under diffusers' names; with
            `normalization.shift` and `.scale` where the file states them.
        config: `type` and arguments where the file states them; see `plain_config`.
        trained: The last trained weights where `state` is their average, named alike.
        discriminator: The state of `PatchGAN`, or an empty dict.
        log_variance: The log-variance of the reconstruction loss, a scalar.
        diffusers_fields: What diffusers' config.json says beyond all this.
        left_out: Names of tensors in the file that belong to none of these.
    """

    state: dict[str, Tensor]
    config: dict[str, Any] | None = None
    trained: dict[str, Tensor] | None = None
    discriminator: dict[str, Tensor] = field(default_factory=dict)
    log_variance: Tensor | None = None
    diffusers_fields: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def normalization(self) -> dict[str, Tensor]:
        """The stated `shift` and `scale`, each (C,), or an empty dict."""
        return below('normalization', self.state)


def read_stored(source: Source) -> Stored:
    """Read an autoencoder of any known format, on the CPU, running no code of the file.

    Args:
        source: A safetensors or torch file of eqzoo, LDM, taming, VA-VAE, MAR, Stable
            Diffusion or diffusers; a folder of diffusers; or two files, of the encoder and of
            the decoder, as taesd's are.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read safely, holds no tensors by name, or a tensor of it
            is not finite.
    """
    if not isinstance(source, str | Path):
        stored = Stored(to_diffusers(_read_halves(source)))
    elif located(source).is_dir():
        stored = Stored(**read_folder(located(source)))
    else:
        stored = _from_content(*read_file(source), source)
    _refuse_nan(stored, source)
    return stored


def shown(source: Source) -> str:
    """Return `source` for a message."""
    return repr(str(source)) if isinstance(source, str | Path) else ' and '.join(repr(str(path)) for path in source)


def _from_content(content: Mapping[str, Any], notes: Mapping[str, Any], source: str | Path) -> Stored:
    content = {key: value for key, value in content.items() if isinstance(key, str)}
    # beside LDM's names: eqzoo's, nested in a torch file and flat in safetensors
    more = content.get('eqzoo') if isinstance(content.get('eqzoo'), Mapping) else {}
    more = more or {name: below(f'eqzoo.{name}', content) for name in ('normalization', 'trained')}
    notes = {**more, **notes}
    trained, average = unnest({key: value for key, value in content.items() if not key.startswith('eqzoo.')})
    if not trained:
        raise ValueError(
            f'weights: {str(source)!r} holds no tensors by name; accepted are a state dict, or a dict with a '
            "'state_dict'; save one of these."
        )
    parts = split_parts(trained)
    averaged = split_parts(average).network if average else parts.average
    config = _config(notes.get('config')) or _config(content.get('autoencoder'))
    # layers of someone's own class may be numbered as taesd's are
    numbered = config is None or config['type'] in CLASSES
    state = to_diffusers(averaged or parts.network, numbered=numbered)
    state |= {f'normalization.{key}': value for key, value in (more.get('normalization') or {}).items()}
    return Stored(
        state,
        config=config,
        trained=to_diffusers(parts.network, numbered=numbered) if averaged else more.get('trained') or None,
        discriminator=parts.discriminator,
        log_variance=parts.log_variance,
        diffusers_fields=notes.get('diffusers_fields') or {},
        left_out=parts.left_out,
    )


def _config(value: object) -> dict[str, Any] | None:
    return value if isinstance(value, dict) and isinstance(value.get('type'), str) else None


def _read_halves(paths: Sequence[str | Path]) -> dict[str, Tensor]:
    if len(paths) != 2:
        raise ValueError(f'weights: got {len(paths)} files; accepted are one, or the pair (encoder, decoder).')
    networks = zip(('encoder', 'decoder'), paths, strict=True)
    return {f'{name}.{key}': value for name, path in networks for key, value in unnest(read_file(path)[0])[0].items()}


def _refuse_nan(stored: Stored, source: Source) -> None:
    bad = [name for name, value in _all_tensors(stored) if not torch.isfinite(value).all()]
    if bad:
        raise ValueError(
            f'weights: {shown(source)} holds NaN or infinite values in {len(bad)} tensors: {listed(bad)}; accepted '
            'are finite weights; fetch it again, or take an earlier checkpoint.'
        )


def _all_tensors(stored: Stored) -> Iterator[tuple[str, Tensor]]:
    yield from stored.state.items()
    yield from ((f'trained {name}', value) for name, value in (stored.trained or {}).items())
    yield from ((f'discriminator {name}', value) for name, value in stored.discriminator.items())
