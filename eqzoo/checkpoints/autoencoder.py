"""An autoencoder's file: read it from any format, load it into a network, identify it by a hash."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eqzoo.checkpoints.config import NORMALIZATION, check_stated, infer_config, plain_config
from eqzoo.checkpoints.diffusers import CLASSES, read_folder
from eqzoo.checkpoints.diffusers_classes import batch_norm_statistics, latent_channels
from eqzoo.checkpoints.generator import STATISTICS
from eqzoo.checkpoints.keys import to_diffusers
from eqzoo.checkpoints.read import (
    below,
    check_finite,
    check_tensors,
    checkpoint_in,
    find_states,
    read_file,
    split_parts,
    unwrapped,
    warn_of_unused,
    with_average,
)
from eqzoo.distributed import rank_and_world_size
from eqzoo.normalization import LatentNormalization
from eqzoo.registry import AUTOENCODERS, build
from eqzoo.text import counted, printable
from eqzoo.zoo import bare_url, located, weights_files

Source = str | Path | Sequence[str | Path]

_HALVES = ('encoder', 'decoder')


@dataclass
class AutoencoderFile:
    """The content of an autoencoder's file or files.

    Args:
        state: The weights to use, the average where there is one, under diffusers' names; with
            `normalization.shift` and `.scale` where the file states them.
        config: `type` and arguments where the file states them; see `plain_config`.
        trained: The last trained weights where `state` is their average, under the same names.
        discriminator: The state of `PatchGAN`, or an empty dict.
        log_variance: The log-variance of the reconstruction loss, a scalar.
        diffusers_fields: Further fields of diffusers' config.json.
        left_out: Names of all other tensors in the file.
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

    @property
    def left_out_in_words(self) -> str:
        """How many tensors are left out, and their names' first two words, such as '31 tensors of loss.lin0'."""
        groups = dict.fromkeys('.'.join(name.split('.')[:2]) for name in self.left_out)
        return f'{counted(len(self.left_out), "tensor")} of {printable(", ".join(groups))}'

    @property
    def network(self) -> dict[str, Tensor]:
        """`state` without the normalisation."""
        return {key: value for key, value in self.state.items() if not key.startswith('normalization.')}


def read_autoencoder(source: Source) -> AutoencoderFile:
    """Read an autoencoder of any known format, on the CPU, without running code from the file.

    Args:
        source: A safetensors or torch file of eqzoo, LDM, taming, VA-VAE, MAR, Stable
            Diffusion or diffusers; a folder of diffusers, or of a run, for its newest checkpoint;
            or two files, of the encoder and of the decoder, as taesd has them, also as
            'ENCODER,DECODER'.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read safely, holds no named tensors, or a tensor of it
            is not finite.
    """
    files = weights_files(source)
    if len(files) != 1 or not isinstance(source, str | Path):
        return _checked(AutoencoderFile(to_diffusers(_read_halves(files))), source)
    path = checkpoint_in(located(files[0]))
    if path.is_dir():
        return _checked(AutoencoderFile(**read_folder(path)), source)
    return parse_autoencoder(*read_file(path), source)


def parse_autoencoder(content: Mapping[str, Any], notes: Mapping[str, Any], source: str | Path) -> AutoencoderFile:
    """Return the autoencoder in the content and notes that `read_file` returned for `source`.

    Raises:
        ValueError: If there are no named tensors, or a tensor is not finite.
    """
    content = {key: value for key, value in content.items() if isinstance(key, str)}
    # beside LDM's names, eqzoo's exports have entries of their own: nested in a torch file, flat in safetensors
    more = content.get('eqzoo') if isinstance(content.get('eqzoo'), Mapping) else {}
    more = more or {name: below(f'eqzoo.{name}', content) for name in ('normalization', 'trained')}
    if isinstance(notes.get('normalization'), Mapping):
        more['normalization'] = _from_plain(notes['normalization'], source)
    notes = {**more, **notes}
    trained, average, unused = find_states({key: v for key, v in content.items() if not key.startswith('eqzoo.')})
    if not trained:
        raise ValueError(
            f"weights: {str(source)!r} holds no named tensors; expected a state dict, or a dict with a 'state_dict'."
        )
    config = next(
        (each for each in (notes.get('config'), content.get('autoencoder')) if _is_component_config(each)), None
    )
    # in a user's own class, layers may have numbers for names, as taesd's have
    is_known = config is None or config['type'] in CLASSES
    parts = split_parts(trained, own_names=not is_known)
    averaged, of_another = parts.average, ()
    if average:
        found = split_parts(average, own_names=not is_known).network
        averaged = with_average(parts.network, found, 'the average')
        of_another = () if averaged else tuple(f'average of {name}' for name in average)
    warn_of_unused(unused, source)
    state = to_diffusers(averaged or parts.network, numbered=is_known)
    stated = _dict_or_empty(more.get('normalization')) or _statistics_beside(content)
    state |= {f'normalization.{key}': value for key, value in stated.items() if isinstance(value, Tensor)}
    if statistics := {} if below('normalization', state) else batch_norm_statistics(state):  # of a file of FLUX.2
        buffers = LatentNormalization(len(statistics['mean']), **statistics).state_dict()
        state |= {f'normalization.{key}': value for key, value in buffers.items()}
    beside = to_diffusers(parts.network, numbered=is_known) if averaged else _dict_or_empty(more.get('trained'))
    if beside:  # without it in both, the file that is written would have none
        beside = {**{key: value for key, value in state.items() if key.startswith('normalization.')}, **beside}
    file = AutoencoderFile(
        state,
        config=config,
        trained=beside or None,
        discriminator=parts.discriminator,
        log_variance=parts.log_variance,
        diffusers_fields=_dict_or_empty(notes.get('diffusers_fields')),
        left_out=(*parts.left_out, *of_another),
    )
    return _checked(file, source)


def load_autoencoder_weights(model: nn.Module, source: Source) -> None:
    """Load a file of any known format into an autoencoder: all of its tensors, or none.

    A file that states no normalisation (any but eqzoo's and folders of diffusers) leaves the
    model's own.

    Args:
        model: An autoencoder with diffusers' names.
        source: A file, a folder or a pair of files; see `read_autoencoder`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file cannot be read safely, does not fit the model, or was trained
            with another padding or other groups of its norms.
    """
    fill_autoencoder(model, read_autoencoder(source), source)


def fill_autoencoder(model: nn.Module, file: AutoencoderFile, source: Source) -> None:
    """Load the content of `source` into an autoencoder, as `load_autoencoder_weights` does, and report ignored parts.

    For eqzoo's own checkpoints there is no message: the rest belongs to the training.
    """
    for name, ours in _settings(model).items():
        theirs = (file.config or {}).get(name)
        if None not in (ours, theirs) and ours != theirs:
            raise ValueError(
                f'{type(model).__name__}.{name}: got {ours!r}, but {quoted(source)} was trained with {theirs!r}; '
                f'expected the same; set {name}={theirs!r} in the config. To fine-tune it with {ours!r}, first '
                'write a file that says so: python tools/convert.py FILE NEW --to eqzoo --config CONFIG.'
            )
    found, wanted = dict(file.state), model.state_dict()
    if not file.normalization:
        found |= {key: value for key, value in wanted.items() if key.startswith('normalization.')}
    if hasattr(model, 'complete_state'):
        found = model.complete_state(found)
    check_tensors(found, wanted, f'{type(model).__name__}.weights: {quoted(source)}')
    _check_levels(found, wanted, f'{type(model).__name__}.weights: {quoted(source)}')
    model.load_state_dict(found)
    if file.left_out and file.config is None and rank_and_world_size()[0] == 0:
        more = file.left_out_in_words
        print(f'weights: {quoted(source)} also has {more}, which no autoencoder needs.', file=sys.stderr)


def choose_config(file: AutoencoderFile, source: Source, config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the given config, or the file's own, or the one inferred from its weights.

    Raises:
        ValueError: If the file's config names something that a file may not name, or the
            architecture cannot be inferred.
    """
    if config is not None:
        return config
    if file.config is None:
        return infer_config(file.state)
    check_stated(file.config, AUTOENCODERS, quoted(source), num_tensors=len(file.state))
    _check_state(file.state, file.config, quoted(source))  # a file may state a network larger than memory
    return file.config


def complete_config(file: AutoencoderFile, source: Source, config: Mapping[str, Any] | None = None) -> AutoencoderFile:
    """Set the config of `file` and check its weights against it; return `file`.

    Args:
        file: Its normalisation is also set, if it has none and the config states one.
        source: Its place, for messages.
        config: Replaces the config that the file states; its normalisation does not.

    Raises:
        ValueError: If weights are missing or unexpected, or the architecture cannot be inferred.
    """
    chosen = choose_config(file, source, config)
    stated = {key: chosen[key] for key in NORMALIZATION if chosen.get(key) is not None}
    file.config = plain_config(chosen)
    if stated and not file.normalization:
        set_normalization(file, stated)
    for state in filter(None, (file.state, file.trained)):
        _check_state(state, file.config, f'convert: {source}')
    return file


def set_normalization(file: AutoencoderFile, arguments: Mapping[str, Any]) -> None:
    """Set the normalisation of `file`, also of its trained weights, from arguments of `LatentNormalization`."""
    buffers = LatentNormalization(latent_channels(file.config), **arguments).state_dict()
    for state in filter(None, (file.state, file.trained)):
        state.update({f'normalization.{key}': value for key, value in buffers.items()})


def to_plain(normalization: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return a normalisation as numbers that JSON can hold, exact, with the type of each tensor."""
    return {
        key: dict(dtype=str(value.dtype), values=value.double().flatten().tolist())
        for key, value in normalization.items()
    }


def autoencoder_digest(autoencoder: nn.Module) -> str:
    """Return a sha256 over names, dtypes, shapes and bytes of the weights, and over padding and groups of norms.

    The normalisation is left out, since raw latents do not depend on it.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(2, 2)
        >>> before = autoencoder_digest(layer)
        >>> layer.bias.data[0] += 1
        >>> autoencoder_digest(layer) == before
        False
    """
    hashed = hashlib.sha256(f'{_settings(autoencoder)}\n'.encode())
    for name, tensor in sorted(autoencoder.state_dict().items()):
        if not name.startswith('normalization.'):
            hashed.update(f'{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\n'.encode())
            hashed.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return hashed.hexdigest()


def quoted(source: Source) -> str:
    """Return `source` in quotes for a message."""
    return ' and '.join(repr(bare_url(path)) for path in ([source] if isinstance(source, str | Path) else source))


def _settings(model: nn.Module) -> dict[str, Any]:
    """Return the settings that change outputs, but no weight's name or shape."""
    norms = (module.num_groups for module in model.modules() if isinstance(module, nn.GroupNorm))
    return dict(padding_mode=getattr(model, 'padding_mode', None), norm_num_groups=next(norms, None))


def _check_levels(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str) -> None:
    """Compare the whole numbers of a quantizer, which are its settings: loaded as weights, they would replace ours."""
    for name, ours in wanted.items():
        theirs = found[name]
        if name.startswith('quantize.') and not ours.is_floating_point() and not torch.equal(theirs, ours.to(theirs)):
            raise ValueError(
                f'{where} has {name} {theirs.tolist()}; the config has {ours.tolist()}; set the former in the '
                'quantizer of the config.'
            )


def _check_state(state: Mapping[str, Tensor], config: Mapping[str, Any], where: str) -> None:
    """Compare weights with those of the autoencoder that a config describes, which takes no memory."""
    with torch.device('meta'):
        wanted = build({key: value for key, value in config.items() if key not in ('weights', *NORMALIZATION)})
    has_normalization = any(key.startswith('normalization.') for key in state)
    names = [name for name in wanted.state_dict() if has_normalization or not name.startswith('normalization.')]
    check_tensors(state, {name: wanted.state_dict()[name] for name in names}, where)


def _from_plain(normalization: Mapping[str, Any], source: Source) -> dict[str, Tensor]:
    """Return the tensors that `to_plain` returned as numbers."""
    dtypes = {str(each): each for each in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}
    try:
        return {
            key: torch.tensor([float(each) for each in value['values']], dtype=dtypes[value['dtype']])
            for key, value in normalization.items()
        }
    except (TypeError, ValueError, LookupError) as error:
        raise ValueError(
            f'weights: the normalisation in the metadata of {quoted(source)} is damaged; expected dtype and values of '
            'shift and scale; write it again: python tools/convert.py.'
        ) from error


def _statistics_beside(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the normalisation that REPA-E's files have beside the autoencoder `vae`, or an empty dict.

    It is the batch norm of their averaged generator, with which the release samples.
    """
    for key in ('ema', 'model') if 'vae' in content else ():
        named = {unwrapped(name): value for name, value in _dict_or_empty(content.get(key)).items()}
        mean, variance = (named.get(f'{STATISTICS}running_{name}') for name in ('mean', 'var'))
        if isinstance(mean, Tensor) and isinstance(variance, Tensor):
            return dict(shift=mean.float(), scale=variance.float().rsqrt())
    return {}


def _dict_or_empty(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _is_component_config(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get('type'), str)


def _read_halves(paths: Sequence[str | Path]) -> dict[str, Tensor]:
    if len(paths) != 2:
        raise ValueError(f'weights: got {len(paths)} files; expected one, or the pair (encoder, decoder).')
    states = {name: find_states(read_file(path)[0]).trained for name, path in zip(_HALVES, paths, strict=True)}
    return {
        f'{name}.{unwrapped(key).removeprefix(f"{name}.")}': value
        for name, state in states.items()
        for key, value in state.items()
    }


def _checked(file: AutoencoderFile, source: Source) -> AutoencoderFile:
    named = {
        **file.state,
        **{f'trained {name}': value for name, value in (file.trained or {}).items()},
        **{f'discriminator {name}': value for name, value in file.discriminator.items()},
    }
    check_finite(named, quoted(source))
    scale = file.normalization.get('scale')
    if scale is not None and not (scale > 0).all():
        raise ValueError(
            f'weights: {quoted(source)} states a normalisation of scale {scale.flatten()[:8].tolist()}; expected '
            'positive numbers; write the right ones: python tools/latent_stats.py CONFIG FILE.'
        )
    return file
