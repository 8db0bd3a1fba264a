"""Weights files: read one without running any code in it, and find the state dicts inside."""

import json
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from eqzoo.checkpoints.pickled import UnreadableFileError, read_pickled
from eqzoo.files import sha256_of
from eqzoo.text import printable
from eqzoo.zoo import located, shard_names, weights_files

# safetensors' metadata is text only; this entry of it is JSON of eqzoo's.
METADATA_KEY = 'eqzoo'

_NUM_LISTED, _LONGEST_NAME = 5, 120

# What readers raise on damaged bytes: neither stacks nor texts of a pickle are checked before they are used.
_DAMAGE = (
    SafetensorError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    TypeError,
    MemoryError,
)

# Files that are often found under the name of a weights file, by their first bytes.
_OTHERS = (
    (b'version https://git-lfs', 'it is a pointer of Git LFS to the file; fetch the file itself: git lfs pull'),
    (b'<', 'it is a web page: the server sent an answer for people; correct its address'),
    (b'GGUF', 'it is in the format GGUF, which has no autoencoders or generators of eqzoo'),
    (b'\x89HDF', 'it is in the format HDF5, of another framework'),
)

# Keys of weights, the first that is there: eqzoo's and LDM's; REPA-E's, whose file also has its generator under
# `model`, hence before that; MAR's, LlamaGen's, DiT's; MaskGIT's; DeepSpeed's; BasicSR's.
_TRAINED = ('state_dict', 'vae', 'model', 'model_state_dict', 'module', 'params')

# Keys of their average: eqzoo's; timm's; detectron's and YOLO's; lucidrains'; MAR's, LlamaGen's, DiT's; BasicSR's.
_AVERAGES = ('ema_state_dict', 'state_dict_ema', 'model_ema', 'ema_model', 'ema', 'ema_model_state_dict', 'params_ema')

# Keys inside of those, of averages that keep their settings beside their weights.
_INNER = ('shadow', 'state_dict', 'module', 'model', 'ema_model', 'params')

_NAMES_AN_AVERAGE = re.compile(r'(^|[._])(ema|avg|average|averaged|averaging|shadow|swa)([._]|\d|$)')

# Prefixes of an autoencoder's names: eqzoo's own checkpoints, LDM's and Stable Diffusion's, merged ones.
_PREFIXES = ('autoencoder.', 'first_stage_model.', 'vae.')

# What torch puts into names: DistributedDataParallel and AveragedModel, compile, FSDP, activation checkpointing.
_WRAPPERS = ('module', '_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module')

# Saved beside autoencoders: LDM's perceptual loss, discriminator and colours of a segmentation; VA-VAE's vision encoder
# and the projection onto it; averages' counts; ComfyUI's scale of tiny autoencoders.
_COMPANIONS = (
    *('loss.', 'foundation_model.', 'linear_proj.', 'reverse_proj.', 'colorize', 'n_averaged'),
    *('vae_scale', 'vae_shift'),
)
_DISCRIMINATORS = ('loss.discriminator.', 'adversarial_loss.discriminator.')
_LOG_VARIANCES = ('loss.logvar', 'reconstruction_loss.log_variance')

# Buffers of codebooks that only training or a renumbering of the codes needs: of averaged codebooks (taming), of
# taming's `remap`, of LlamaGen.
_CODEBOOK_BUFFERS = re.compile(r'quantize\.(embedding\.)?(cluster_size|embed_avg|used|codebook_used|initted)')

_LIT_EMA = 'model_ema.'

# Files of a run.
_CHECKPOINT = re.compile(r'(?P<best>best_.*)?iter_(?P<step>\d{1,18})\.pth')


def read_file(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the content of a file, on the CPU, and eqzoo's notes in its metadata.

    Its format is recognised by its first bytes, whatever its name.

    Args:
        path: A safetensors file, whose content is flat, or one that `torch.save` wrote, whose
            content may be nested. Only safetensors have metadata. A folder of a run stands for its
            newest checkpoint, an index of shards (`….index.json`) for all of them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is another folder, is damaged, or is of another format.
    """
    path = checkpoint_in(located(path))
    if not path.is_file():
        raise _no_file(path)
    if path.suffix == '.json':
        return _read_shards(path), {}
    try:
        content, notes = _read_safetensors(path) if _is_safetensors(path) else (read_pickled(path), {})
    except UnreadableFileError as error:
        raise _unreadable(path, str(error)) from error
    except _DAMAGE as error:
        with path.open('rb') as file:
            head = file.read(64).lstrip()
        reason = next((what for start, what in _OTHERS if head.startswith(start)), None)
        raise _unreadable(path, reason or 'it is damaged, incomplete, or not a weights file') from error
    return (content if isinstance(content, dict) else {}), notes


def weights_sha256(weights: str | Path | Sequence[str | Path]) -> str:
    """Return the sha256 of a weights file; of a pair or a folder, of the bytes of its files, one after the other."""
    paths = [checkpoint_in(located(each)) for each in weights_files(weights)]
    files = [sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path] for path in paths]
    return sha256_of(*(file for part in files for file in part))


def checkpoint_in(path: Path) -> Path:
    """Return the newest checkpoint in the folder of a run, its best where it has no other; any other path as it is."""
    found = [match for match in (_CHECKPOINT.fullmatch(file.name) for file in path.glob('*.pth')) if match]
    newest = max(found, key=lambda match: (not match['best'], int(match['step'])), default=None)
    return path / newest[0] if newest else path


class States(NamedTuple):
    """The state dicts in a file.

    Args:
        trained: The trained weights by name.
        average: Their average by name, or an empty dict.
        unused: Keys of averages in a form that is not read.
    """

    trained: dict[str, Tensor]
    average: dict[str, Tensor]
    unused: tuple[str, ...] = ()


def find_states(content: Mapping[str, Any], *, keys: Iterable[str] = _TRAINED) -> States:
    """Find the trained weights in a file's content, and their average.

    Only named tensors count. If a file has nothing but an average, it is returned as the trained weights.

    Args:
        content: What `read_file` returned.
        keys: Where weights may be, the first that is there.
    """
    content = {key: value for key, value in content.items() if isinstance(key, str)}
    trained_key = next((key for key in keys if _tensors(content.get(key))), None)
    average_keys = ('vae_ema', 'ema_vae') if trained_key == 'vae' else _AVERAGES
    average_key = next((key for key in average_keys if _tensors(content.get(key))), None)
    is_nested = any(isinstance(content.get(key), Mapping) for key in (*keys, *average_keys))
    trained = _tensors(content.get(trained_key)) if is_nested else _tensors(content)
    average = _tensors(content.get(average_key))
    average = below('ema_model', average) or average
    # both in one dict: eqzoo's safetensors, and lucidrains' averages
    for prefix in ('ema_state_dict', 'ema_model') if not average else ():
        average = average or below(prefix, trained)
        trained = {key: value for key, value in trained.items() if not key.startswith(f'{prefix}.')}
    trained = below('online_model', trained) or trained
    others = [key for key in content if key not in (*keys, *_AVERAGES, *average_keys)]
    unused = [key for key in others if _NAMES_AN_AVERAGE.search(key) and _holds_tensors(content[key])]
    return States(trained, average, tuple(unused)) if trained else States(average, {}, tuple(unused))


def below(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of `state` under `prefix.`, without the prefix."""
    return {key[len(prefix) + 1 :]: value for key, value in state.items() if key.startswith(f'{prefix}.')}


@dataclass
class StateParts:
    """The parts of one state dict.

    Args:
        network: The autoencoder's weights, without prefix, under the file's names.
        average: The network's moving average, under the same names.
        discriminator: The state of eqzoo's `PatchGAN`.
        log_variance: The log-variance of the reconstruction loss, a scalar.
        left_out: Names of all other tensors.
    """

    network: dict[str, Tensor]
    average: dict[str, Tensor] | None = None
    discriminator: dict[str, Tensor] = field(default_factory=dict)
    log_variance: Tensor | None = None
    left_out: tuple[str, ...] = ()


def split_parts(state: Mapping[str, Tensor], *, own_names: bool = False) -> StateParts:
    """Separate an autoencoder and its companions from the rest of a state dict.

    Args:
        state: Weights by name.
        own_names: Whether the network is a user's own, so that `module` inside a name is its word, not torch's.

    Raises:
        ValueError: If an average beside it lacks some of the weights of an encoder or a decoder.
    """
    bare = _unwrapped_outside if own_names else unwrapped
    state = {bare(key): value for key, value in state.items()}
    prefix, averages = _find_prefixes(state)
    inner = {bare(key.removeprefix(prefix)): value for key, value in state.items() if key.startswith(prefix)}
    around = {**state, **inner}  # the discriminator stands inside LDM's prefix, and beside eqzoo's
    beside = (*_COMPANIONS, _LIT_EMA, *(each for each in averages if not prefix))
    parts = StateParts(
        {k: v for k, v in inner.items() if not k.startswith(beside) and not _CODEBOOK_BUFFERS.fullmatch(k)}
    )
    found = _lit_ema(parts.network, below('model_ema', inner))
    used_average = _LIT_EMA if found else next(iter(averages), None)
    if not found and used_average:
        found = {key.removeprefix(used_average): v for key, v in state.items() if key.startswith(used_average)}
    parts.average = with_average(parts.network, found or {}, used_average or '') or None
    for name in _DISCRIMINATORS:
        found = {key.removeprefix(name): value for key, value in around.items() if key.startswith(name)}
        # taming's discriminator is the module `network` of eqzoo's
        parts.discriminator |= {f'network.{k}' if k.startswith('main.') else k: v for k, v in found.items()}
    parts.log_variance = next((around[name] for name in _LOG_VARIANCES if name in around), None)
    used = (*_DISCRIMINATORS, *_LOG_VARIANCES, *([used_average] if parts.average else []))
    inside = [key for key in inner if key not in parts.network and not key.startswith(used)]
    outside = [key for key in state if not key.startswith((prefix, *used))] if prefix else []
    parts.left_out = (*inside, *outside)
    return parts


def with_average(trained: Mapping[str, Tensor], average: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return `trained` with the weights that `average` has in their place; {} if it has none of them.

    An average may be of the decoder alone (sd-vae-ft's recipe), but not of half a decoder.

    Args:
        trained: Weights by name.
        average: Their average, under the same names.
        where: Where the file has it, for the message.

    Raises:
        ValueError: If it has some weights of a part of the network, and lacks others.
    """
    parts: dict[str, list[str]] = {}
    for name, value in trained.items():
        if value.is_floating_point():
            parts.setdefault(name.partition('.')[0], []).append(name)
    averaged = [part for part, names in parts.items() if any(name in average for name in names)]
    names = [name for part in averaged for name in parts[part]]
    missing = [name for name in names if name not in average]
    if missing:
        raise ValueError(
            f'weights: the average in {where.rstrip(".")}.* lacks {len(missing)} of {len(names)} weights of '
            f'{first_names(averaged)}: {first_names(missing)}; expected all weights of a part or none; fetch the file '
            'again. To use its trained weights, copy them into another file, and keep this one.'
        )
    return {name: average.get(name, value) for name, value in trained.items()} if averaged else {}


def warn_of_unused(unused: Iterable[str], source: object) -> None:
    """Warn that a file has averages in a form that is not read, so that its trained weights are used."""
    if unused := list(unused):
        warnings.warn(
            f'weights: {printable(source)} also has an average under {first_names(unused)}, in an unknown form or '
            "without names: it is not used, the trained weights are. To use it, save it by name under 'ema'.",
            stacklevel=3,
        )


def check_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str) -> None:
    """Compare the names, shapes and kinds of numbers of two state dicts.

    Raises:
        ValueError: If they differ, with the names.
    """
    missing = [key for key in wanted if key not in found]
    unexpected = [key for key in found if key not in wanted]
    misshapen = [
        f'{key} {tuple(found[key].shape)}, not {tuple(wanted[key].shape)}'
        for key in wanted
        if key in found and found[key].shape != wanted[key].shape
    ]
    mistyped = [
        f'{key} {found[key].dtype}'
        for key in wanted
        if key in found and found[key].is_floating_point() != wanted[key].is_floating_point()
    ]
    kinds = (
        ('missing', missing),
        ('unexpected', unexpected),
        ('of another shape', misshapen),
        ('of numbers that are no weights', mistyped),
    )
    problems = [f'{len(keys)} {kind}: {first_names(keys)}' for kind, keys in kinds if keys]
    if problems:
        raise ValueError(
            f'{where} does not fit the network: {"; ".join(problems)}. '
            'Choose the file that belongs to this config, or the config that belongs to this file.'
        )


def check_finite(named: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that are not finite.

    Args:
        named: Tensors by name.
        source: The file, for the message.

    Raises:
        ValueError: If one is not, with their names.
    """
    bad = [name for name, value in named.items() if not _is_finite(value)]
    if bad:
        many = '' if len(bad) == 1 else f'{len(bad)} tensors: '
        raise ValueError(
            f'weights: {source} holds NaN or infinite values in {many}{first_names(bad)}; '
            'expected finite weights; fetch it again, or take an earlier checkpoint.'
        )


def first_names(names: Iterable[str]) -> str:
    """Return the first few of `names` for a message, made printable."""
    names = list(names)
    shown = [name if len(name) <= _LONGEST_NAME else f'{name[:_LONGEST_NAME]}…' for name in names[:_NUM_LISTED]]
    return printable(', '.join(shown) + (', …' if len(names) > _NUM_LISTED else ''))


def unwrapped(key: str) -> str:
    """Return a weight's name without what wrappers of torch put into it.

    Example:
        >>> unwrapped('module.encoder._orig_mod.conv_in.weight')
        'encoder.conv_in.weight'
    """
    return '.'.join(word for word in key.split('.') if word not in _WRAPPERS)


def _unwrapped_outside(key: str) -> str:
    while key.startswith(tuple(f'{word}.' for word in _WRAPPERS)):
        key = key.split('.', 1)[1]
    return key


def _no_file(path: Path) -> ValueError:
    if not path.is_dir():
        return ValueError(f'weights: {str(path)!r} is no regular file; expected a file or a folder.')
    inside = sorted(file.name for file in path.iterdir() if file.suffix in ('.pth', '.pt', '.ckpt', '.safetensors'))
    hint = f'; give one of its files: {first_names(inside)}' if inside else ''
    if (path / 'config.json').is_file():
        hint = "; of diffusers' folders, eqzoo reads those of an autoencoder"
    return ValueError(
        f'weights: {str(path)!r} is a folder without a checkpoint iter_N.pth; expected a file, or the folder of a run'
        f'{hint}.'
    )


def _unreadable(path: Path, reason: str) -> ValueError:
    return ValueError(
        f'weights: {str(path)!r} cannot be read: {reason}; expected a whole safetensors or torch file of tensors; '
        'fetch it again, or convert it.'
    )


def _is_safetensors(path: Path) -> bool:
    """Return whether a file begins as safetensors do: the length of a JSON object, and the object."""
    with path.open('rb') as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b'{' and int.from_bytes(head[:8], 'little') <= path.stat().st_size - 8


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with safe_open(path, framework='pt') as file:
        notes = json.loads((file.metadata() or {}).get(METADATA_KEY, '{}'))
        if not isinstance(notes, dict):
            raise UnreadableFileError(f'the entry {METADATA_KEY!r} of its metadata is no JSON object')
        return {name: file.get_tensor(name) for name in file.keys()}, notes  # noqa: SIM118, it is no dict


def _read_shards(index: Path) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name in shard_names(index):
        content |= read_file(index.with_name(name))[0]
    missing = [name for name in json.loads(index.read_text())['weight_map'] if name not in content]
    if missing:
        raise ValueError(f'weights: the shards of {str(index)!r} lack {first_names(missing)}; fetch them again.')
    return content


def _lit_ema(network: Mapping[str, Tensor], average: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return LDM's average, which has names without dots, under the network's names.

    Empty if it is of another network: Stable Diffusion's is of its denoiser.
    """
    return {name: average[short] for name in network if (short := name.replace('.', '')) in average}


def _find_prefixes(state: Mapping[str, Tensor]) -> tuple[str, list[str]]:
    """Return the prefix of an autoencoder's names, and those under which averages of it are."""
    known = next((each for each in _PREFIXES if any(key.startswith(each) for key in state)), '')
    before: dict[str, set[str]] = {'encoder': set(), 'decoder': set()}
    for key in state:
        words = key.split('.')
        part = next((word for word in words if word in before), None)
        if part:
            before[part].add(''.join(f'{word}.' for word in words[: words.index(part)]))
    both = sorted(each for each in before['encoder'] & before['decoder'] if not each.startswith(_COMPANIONS))
    averages = [each for each in both if _NAMES_AN_AVERAGE.search(each)]
    trained = [each for each in both if each not in averages and each.startswith(known)]
    if not trained and not known and len(averages) == 1:
        return averages[0], []
    return (known if known in trained or len(trained) != 1 else trained[0]), averages


def _is_finite(value: Tensor) -> bool:
    # 8-bit floats have no `isfinite` of their own
    return not value.is_floating_point() or bool(torch.isfinite(value if value.itemsize > 1 else value.float()).all())


def _tensors(state: object) -> dict[str, Tensor]:
    """Return the named tensors of a dict, or those of a dict inside it."""
    if not isinstance(state, Mapping):
        return {}
    inner = next((found for key in _INNER if key in state and (found := _tensors(state[key]))), None)
    return inner or {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor)}


def _holds_tensors(value: object) -> bool:
    """Return whether there are tensors in a dict or list, or in the first one inside it."""
    for _ in range(2):
        items = list(value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ())
        if any(isinstance(item, Tensor) for item in items):
            return True
        value = next((item for item in items if isinstance(item, Mapping | list | tuple)), ())
    return False
