"""`eqzoo.load`: an autoencoder or a generator from the zoo, a file, a folder or a URL, ready to use.

This module must not be called `load.py`: importing a submodule `eqzoo.load` would replace the function
of that name in the package.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eqzoo.config import configs_folder, read_with_imports, trains_autoencoder
from eqzoo.text import shell_word
from eqzoo.zoo import fetch, find_model, is_remote, models, weights_files

if TYPE_CHECKING:
    from eqzoo.autoencoders import Autoencoder
    from eqzoo.generators.base import Generator

Source = str | Path | Sequence[str | Path]
Kind = Literal['autoencoder', 'generator']


def load_component(
    source: Source, *, config: str | Path | Mapping[str, Any] | None = None
) -> 'Autoencoder | Generator':
    """Return an autoencoder or a generator, in eval mode, on the CPU and in float32.

    Files that are not on this machine are downloaded.

    Args:
        source: A name of the zoo (`python tools/download.py --list`); a checkpoint or weights
            file; a diffusers folder; a work directory, for its newest checkpoint; a URL, also
            `hf://org/repository/file`; or a pair of files, as a list or as 'ENCODER,DECODER'.
        config: The config to build from, as a config file or as `type` and arguments of the
            component. Default: that of the zoo, or the file's own; the architecture of an
            autoencoder is otherwise inferred from its weights. The normalisation of the config
            holds where the file states none. Of a generator, `type`, `process` and those arguments
            of `network` are enough that its weights do not show: see `infer_network`.

    Raises:
        ValueError: If there is no such name, the file cannot be read safely or does not fit, or
            its architecture cannot be inferred.
        OSError: If a file is not there, or cannot be downloaded.
    """
    return _load(source, config, None)


def load_autoencoder(source: Source, config: str | Path | Mapping[str, Any] | None = None) -> 'Autoencoder':
    """Return an autoencoder as `load_component` does, and refuse a generator, before its download where possible."""
    return _load(source, config, 'autoencoder')


def released_config(name: str, wanted: Kind | None = None) -> tuple[Kind, dict[str, Any]]:
    """Return whether the zoo's model `name` is an autoencoder or a generator, and the config of that component.

    Args:
        name: The model.
        wanted: Which of the two to take of a model that was trained as both (REPA-E); the generator by default.

    Raises:
        ValueError: If there is no such model, or it is neither.
    """
    path = configs_folder().parent / find_model(name).config
    parts = _components_of(path)
    if wanted in parts and trains_autoencoder(read_with_imports(path).get('model', {})):
        return wanted, parts[wanted]
    return next(iter(parts.items()))  # of both, the generator: its autoencoder is another model of the zoo


def autoencoder_config(path: str | Path) -> dict[str, Any]:
    """Return the config of the autoencoder in a config file: of a base, or of a run.

    Raises:
        ValueError: If it has none.
    """
    parts = _parts_of(path)
    if 'autoencoder' not in parts:
        raise ValueError(f'{path} has no autoencoder; expected a config with `autoencoder` or `model.autoencoder`.')
    return parts['autoencoder']


def _load(source: Source, config: str | Path | Mapping[str, Any] | None, wanted: Kind | None) -> Any:
    """Find the files and the config, read the files once, build the component and fill it with their weights."""
    from eqzoo.checkpoints.autoencoder import choose_config, fill_autoencoder, parse_autoencoder, read_autoencoder
    from eqzoo.checkpoints.generator import complete_network, fill_generator, is_generator, parse_generator
    from eqzoo.checkpoints.read import read_file
    from eqzoo.registry import build

    name = _released_name(source)
    stated: dict[Kind, Mapping[str, Any]] = {}
    if config is not None:
        stated = _components_of(config)
    elif name is not None:
        stated = dict([released_config(name, wanted)])
    kind = next(iter(stated)) if len(stated) == 1 else None  # a config of both leaves it to the file
    _check_kind(kind, wanted, name or source)  # before a long download
    paths = _local_paths(source, name)
    where = paths if len(paths) > 1 else paths[0]
    if kind == 'generator' and len(paths) > 1:
        raise ValueError(f'load: got {len(paths)} files; expected one file of a generator.')
    if len(paths) > 1 or (kind != 'generator' and where.is_dir()):
        file, kind = read_autoencoder(where), 'autoencoder'
    else:
        content, notes = read_file(where)
        kind = kind or ('generator' if is_generator(content) else 'autoencoder')
        _check_kind(kind, wanted, where)
        file = parse_generator(content, where) if kind == 'generator' else parse_autoencoder(content, notes, where)
    if kind == 'autoencoder':
        chosen = choose_config(file, where, stated.get(kind))
        autoencoder = build({key: value for key, value in chosen.items() if key != 'weights'})
        fill_autoencoder(autoencoder, file, where)
        return autoencoder.eval()
    chosen = dict(stated.get(kind) or _own_config(file, where))
    chosen.pop('encoder', None)  # only training looks at images
    if isinstance(config, Mapping):
        chosen['network'] = complete_network(chosen.get('network'), file.state, repr(str(where)))
    chosen['network'] = {key: value for key, value in chosen['network'].items() if key not in ('weights', 'adapt')}
    generator = build(chosen)
    fill_generator(generator.network, file, where)
    return generator.eval()


def _released_name(source: Source) -> str | None:
    """Return the name in the zoo that `source` is, or is closest to being; None for a file, folder or URL."""
    if not isinstance(source, str):
        return None
    name = source.removeprefix('eqzoo://')
    if name in models():
        return name
    looks_like_a_path = '/' in source or '.' in source or ',' in source
    return None if looks_like_a_path or is_remote(source) or Path(source).exists() else name


def _local_paths(source: Source, name: str | None) -> list[Path]:
    if name is not None:
        return [fetch(f'eqzoo://{name}/{file.name}') for file in find_model(name).files]
    from eqzoo.checkpoints.read import checkpoint_in

    return [checkpoint_in(fetch(each)) for each in weights_files(source)]


def _components_of(config: str | Path | Mapping[str, Any]) -> dict[Kind, dict[str, Any]]:
    """Return the generator, if any, and the autoencoder of a config file, or the component that `config` is."""
    from eqzoo.registry import GENERATORS, find_component

    if isinstance(config, Mapping):
        if not callable(config.get('type')) and not isinstance(config.get('type'), str):
            raise ValueError(
                f'load: got config={dict(config)!r:.200}, without a `type`; expected a component and its '
                "arguments, such as dict(type='KLAutoencoder', scale=0.18215), or a config file; add the type."
            )
        cls = config['type'] if callable(config['type']) else find_component(config['type'])
        GENERATORS.import_from_location()
        return {'generator' if cls in GENERATORS.module_dict.values() else 'autoencoder': dict(config)}
    parts = _parts_of(config)
    if not parts:
        raise ValueError(
            f'{config} has no autoencoder and no generator; expected a config with `autoencoder`, '
            '`model.autoencoder` or `model.generator`.'
        )
    return parts


def _parts_of(path: str | Path) -> dict[str, Any]:
    config = read_with_imports(path)
    parts = {'autoencoder': config.get('autoencoder'), **config.get('model', {})}
    return {kind: parts[kind].to_dict() for kind in ('generator', 'autoencoder') if parts.get(kind) is not None}


def _check_kind(kind: Kind | None, wanted: Kind | None, source: Source) -> None:
    if kind is not None and wanted not in (None, kind):
        is_name = isinstance(source, str) and source in models()
        run = find_model(source).config if is_name else f'CONFIG {shell_word(source)}'
        raise ValueError(
            f'{source} is a generator; expected an autoencoder; draw samples of it: python tools/sample.py {run}.'
        )


def _own_config(file: Any, path: Path) -> Mapping[str, Any]:
    """Return the config that a generator's file states."""
    from eqzoo.checkpoints.config import check_stated
    from eqzoo.checkpoints.generator import describe_state, infer_network
    from eqzoo.registry import GENERATORS

    if file.config is None:
        found = infer_network(file.state)
        heads = '' if found['size'][2] else ' and, in network=dict(size=…), the attention heads'
        raise ValueError(
            f'load: {str(path)!r} holds a generator of {describe_state(file.state)}; weights do not show its process'
            f'{heads}; expected a name of the zoo, a checkpoint of eqzoo, or a config; give '
            f"config='configs/….py' with model.generator, or config={_example(found)}, where the rest is inferred."
        )
    check_stated(file.config, GENERATORS, repr(str(path)), num_tensors=len(file.state))
    return file.config


def _example(network: Mapping[str, Any]) -> str:
    """Return a config with all that a file of such a network does not show, for a message."""
    depth, width, heads = network['size']
    size = '' if heads else f'size=({depth}, {width}, HEADS)'
    if network['type'] == 'MaskTransformer':
        return f"dict(type='MaskGIT', network=dict({size}, num_codes=NUMBER))"
    if network['type'] == 'AlignedTransformer':
        size += ', tap=BLOCK' if size else 'tap=BLOCK'
    process = "process=dict(type='Interpolant', network_time='noise_to_data')"
    return f"dict(type='SiT', {process}, network=dict({size}))"
