"""An autoencoder as files hold it: read it, load it, identify it."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eqzoo.checkpoints.config import NORMALIZATION, foreign_types, infer_config, plain_config
from eqzoo.checkpoints.diffusers import CLASSES, read_folder
from eqzoo.checkpoints.keys import to_diffusers
from eqzoo.checkpoints.read import below, check_fit, listed, read_file, split_parts, unnest
from eqzoo.normalization import LatentNormalization
from eqzoo.registry import AUTOENCODERS, build
from eqzoo.zoo import located

if TYPE_CHECKING:
    from eqzoo.autoencoders import Autoencoder

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


def load_weights(model: nn.Module, source: Source) -> None:
    """Load a file of any known format into `model`, every tensor of it or none.

    A file that states no normalisation (any but eqzoo's and folders of diffusers) leaves the
    model's own.

    Args:
        model: An autoencoder with diffusers' names.
        source: A file, a folder or a pair of files; see `read_stored`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file cannot be read safely, does not fit the model, or was trained
            with another padding or other groups of its norms.
    """
    load_stored(model, read_stored(source), source)


def load_stored(model: nn.Module, stored: Stored, source: Source) -> None:
    """Load what was read from `source`, as `load_weights` does."""
    _check_settings(model, stored, source)
    found, wanted = dict(stored.state), model.state_dict()
    if not stored.normalization:
        found |= {key: value for key, value in wanted.items() if key.startswith('normalization.')}
    check_fit(found, wanted, f'{type(model).__name__}.weights: {shown(source)}')
    model.load_state_dict(found)


def _check_settings(model: nn.Module, stored: Stored, source: Source) -> None:
    """Compare the settings that change outputs but no weight's name or shape."""
    norms = (module.num_groups for module in model.modules() if isinstance(module, nn.GroupNorm))
    settings = dict(padding_mode=getattr(model, 'padding_mode', None), norm_num_groups=next(norms, None))
    for name, ours in settings.items():
        theirs = (stored.config or {}).get(name)
        if None not in (ours, theirs) and ours != theirs:
            raise ValueError(
                f'{type(model).__name__}.{name}: got {ours!r}, but {shown(source)} was trained with {theirs!r}; '
                f'accepted is the same; set {name}={theirs!r} in the config. To fine-tune it with {ours!r}, first '
                'write a file that says so: python tools/convert.py FILE NEW --to eqzoo --config CONFIG.'
            )


def load_autoencoder(source: str | Path, config: Mapping[str, Any] | None = None) -> 'Autoencoder':
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


_NORMALIZATION = 'normalization.'


def autoencoder_digest(autoencoder: nn.Module) -> str:
    """Return a sha256 over names, dtypes, shapes and bytes of the weights, and over padding and groups of norms.

    The normalisation is left out: raw latents do not depend on it. Padding and groups change
    outputs, but no weight's name or shape.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(2, 2)
        >>> before = autoencoder_digest(layer)
        >>> layer.bias.data[0] += 1
        >>> autoencoder_digest(layer) == before
        False
    """
    hashed = hashlib.sha256()
    norms = (module.num_groups for module in autoencoder.modules() if isinstance(module, nn.GroupNorm))
    settings = dict(padding_mode=getattr(autoencoder, 'padding_mode', None), norm_num_groups=next(norms, None))
    hashed.update(f'{settings}\n'.encode())
    for name, tensor in sorted(autoencoder.state_dict().items()):
        if not name.startswith(_NORMALIZATION):
            hashed.update(f'{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\n'.encode())
            hashed.update(_bytes_of(tensor))
    return hashed.hexdigest()


def _bytes_of(tensor: Tensor) -> memoryview:
    return memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
