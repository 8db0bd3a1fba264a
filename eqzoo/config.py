"""Config files: find, read, override, check, print."""

import ast
import keyword
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from eqzoo.files import did_you_mean, expand_home, nearest
from eqzoo.registry import KINDS, argument_defaults
from eqzoo.registry.light import Config, config_module
from eqzoo.schema import check_keys
from eqzoo.text import shell_word


class Key(NamedTuple):
    """A top-level key of a config.

    Args:
        holds_components: Its components are checked against their constructors, and shrunk by `--smoke`.
        is_for_training: Training needs the files that its components require.
    """

    holds_components: bool = False
    is_for_training: bool = True


# The keys of a run, in the order in which messages list them. Other names in a config file are its building blocks.
KEYS = {
    'model': Key(holds_components=True),
    'train_dataloader': Key(holds_components=True),
    'val_dataloader': Key(holds_components=True),
    'test_dataloader': Key(holds_components=True, is_for_training=False),
    'cache_dataloader': Key(holds_components=True, is_for_training=False),
    'cache_encoder': Key(holds_components=True, is_for_training=False),
    'evaluators': Key(holds_components=True),
    'test_evaluators': Key(holds_components=True, is_for_training=False),
    'default_hooks': Key(holds_components=True),
    'custom_hooks': Key(holds_components=True),
    'sampling': Key(holds_components=True, is_for_training=False),
    'optim_wrapper': Key(),
    'param_scheduler': Key(),
    'train_cfg': Key(),
    'phases': Key(),
    'custom_imports': Key(),
    'visualizer': Key(),
    'log_processor': Key(),
    'seed': Key(),
    'compile': Key(),
    'resume': Key(),
    'device': Key(),
    'gpu': Key(),
    'sharding': Key(),
    'work_dir': Key(),
}

_DEFAULTS = {'seed': 0, 'resume': None, 'device': 'auto', 'sharding': None}
# Settings that overrides may set; a config without changes to them has no such key, and reads as it always did.
_SWITCHES = {'gpu': {'deterministic': False, 'tf32': None, 'cudnn_benchmark': False}}
# Data sets without images.
_LATENTS = ('LatentStore', 'LightningDiTLatents', 'NpyLatents')
_NOT_OF_A_RUN = {'_base_', 'zoo'}
_PACKAGE = Path(__file__).resolve().parent
_WORDS = {'true': True, 'false': False, 'none': None}
_LINE_LENGTH = 120


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config file, import the user's own components, apply `key=value` overrides.

    Args:
        path: A Python config in mmengine's pure-Python style; a `configs/…` that is not in the
            current directory is looked up among the configs that come with eqzoo.
        overrides: `a.b.0.c=value`: keys that exist in the config, or arguments of a component
            in it; values are Python literals, or words.

    Raises:
        ValueError: If the file is missing or broken, a top-level name looks like a misspelt
            key, an override has no `=`, an unknown key or a value of another type, a key that is no
            component's argument is out of its range (`eqzoo.schema`), hooks have no names, or a module of
            `custom_imports` cannot be imported or registers a name that is taken.
    """
    path = find_config(path)
    whole = read_config(path)
    _check_names(whole, path)
    config = Config({key: whole[key] for key in KEYS if key in whole}, filename=str(path))
    for key, value in {**_DEFAULTS, 'work_dir': default_work_dir(path)}.items():
        config.setdefault(key, value)
    _import_custom(config, path)
    for key, switches in _SWITCHES.items():
        if isinstance(config.get(key, {}), Mapping):
            config[key] = {**switches, **config.get(key, {})}
    for override in overrides:
        apply_override(config, override)
    for key, switches in _SWITCHES.items():
        if config[key] == switches:
            config.pop(key)
    _check_hooks(config.get('custom_hooks', {}), path)
    check_keys(config)
    config.work_dir = str(expand_home(config.work_dir))
    return config


def require(config: Mapping[str, Any], task: str, *keys: str) -> None:
    """Check that a config has the keys that a task needs.

    Args:
        config: A config of `load_config`.
        task: What it is needed for, in words: `'training'`.
        keys: The keys, as `model.autoencoder`; of 'a|b' one is enough.

    Raises:
        ValueError: Naming the missing keys, what the file is, and the command for it.
    """
    lacking = [key for key in keys if not any(_has(config, each) for each in key.split('|'))]
    if not lacking:
        return
    name, model = config.filename, config.get('model') or {}
    if 'study' in read_config(name):
        hint = f'it is a study: python tools/study.py {shell_word(name)}'
    elif 'generator' in model and 'autoencoder' in model:
        hint = f'it is the config of a generator: train it with python tools/train.py {shell_word(name)}'
    elif 'autoencoder' in model and 'train_dataloader' in config:
        hint = f'it is the config of an autoencoder: train it with python tools/train.py {shell_word(name)}'
    else:
        hint = (
            'expected a run, such as configs/eqvae/sd_rot_scale.py. Files of configs/_base_ and configs/zoo are '
            'parts of runs'
        )
    names = ', '.join(key.replace('|', ' or ') for key in lacking)
    raise ValueError(f'{name} describes no {task}: it has no {names}; {hint}.')


def trains_autoencoder(model: Mapping[str, Any]) -> bool:
    """Return whether a config's `model` trains its autoencoder; with a generator, only joint training has losses of it.

    Example:
        >>> trains_autoencoder(dict(type='GeneratorTraining', generator={}, autoencoder={}))
        False
    """
    return 'generator' not in model or 'reconstruction_loss' in model


def image_dataloader(config: Config) -> dict[str, Any]:
    """Return the config of the loader whose images become latents: `cache_dataloader`, otherwise `train_dataloader`.

    Raises:
        ValueError: If neither has images: a generator learns from latents.
    """
    for key in ('cache_dataloader', 'train_dataloader'):
        loader = config.get(key)
        kind = loader['dataset'].get('type') if loader else None
        if loader and getattr(kind, '__name__', kind) not in _LATENTS:
            return loader
    raise ValueError(
        f'{config.filename}: no images to encode: it has no cache_dataloader, and train_dataloader is of latents; '
        'expected cache_dataloader=dict(batch_size=…, num_workers=…, dataset=dict(type=ImageFolder, …)); add it.'
    )


def find_config(path: str | Path) -> Path:
    """Return the config file `path`: as it stands, or among the configs that come with eqzoo.

    A file in the current directory wins over eqzoo's `configs/…` of the same name.

    Raises:
        ValueError: If there is none, with the nearest.
    """
    path, own = Path(path), configs_folder()
    if path.is_file():
        return path
    if path.parts[:1] == ('configs',) and (own.parent / path).is_file():
        return own.parent / path
    known = [str(each.relative_to(folder.parent)) for folder in (Path('configs'), own) for each in leaf_configs(folder)]
    raise ValueError(
        f'Config {str(path)!r} is not a file.{did_you_mean(str(path), known)} '
        f"Looked for in {Path.cwd()} and, as configs/…, among eqzoo's own in {own} (eqzoo configs lists them)."
    )


def read_config(path: str | Path) -> Config:
    """Read a config file whose bases are relative imports, or `from eqzoo.configs.… import …`; import nothing else.

    Raises:
        ValueError: If it is no Python file, or broken.
    """
    path = Path(path)
    if path.suffix != '.py':
        raise ValueError(f'Config {path}: expected a Python file, NAME.py, as eqzoo configs lists them.')
    try:
        with _bases_in_packages():
            return Config.fromfile(path, import_custom_modules=False)
    except Exception as error:  # a config is a program, and may raise anything
        raise ValueError(f'Config {path} cannot be read: {_read_failure(error, path)}') from error


def read_with_imports(path: str | Path) -> Config:
    """Read a config file, of a run or of a part of one, and import the user's modules that its `custom_imports` name.

    Raises:
        ValueError: If the file is missing or broken, or a module cannot be imported or registers a name that is taken.
    """
    path = find_config(path)
    config = read_config(path)
    _import_custom(config, path)
    return config


def _read_failure(error: Exception, path: Path) -> str:
    """Return why a config file cannot be read."""
    reason = f'{type(error).__name__}: {error}'.removesuffix(': ')
    # mmengine's stand-ins of what a config imports; calling one raises a RuntimeError without a word
    if reason == 'RuntimeError' or 'LazyAttr' in reason or 'LazyObject' in reason:
        return (
            f"{reason}; a config's imports are not executed, so functions and values of other modules cannot be used "
            'in it; write the value itself, or give it on the command line as key=value.'
        )
    if 'independent package' in reason:
        return f'it imports a module of no package ({error}); a config beside it is `from .NAME import *`.'
    if missing := re.match(r'(\S*\.\./\S+\.py) not found!', str(error)):
        folder = configs_folder()
        original = next(iter(sorted(folder.rglob(path.name))), folder / 'eqvae/sd_rot_scale.py').relative_to(folder)
        module = '.'.join(original.with_suffix('').parts)
        return (
            f"it builds on {missing[1]}, which is not there; a copy of one of eqzoo's configs is not needed: "
            f'import it, `with read_base(): from eqzoo.configs.{module} import *`, and change what differs.'
        )
    return reason


def _import_custom(config: Mapping[str, Any], path: Path) -> None:
    """Import the user's modules, found beside the config, in the current directory or as usual."""
    names, may_fail = _custom_modules(config.get('custom_imports'), path)
    for folder in (str(Path.cwd()), str(path.resolve().parent)):
        if names and folder not in sys.path:
            sys.path.insert(0, folder)
    for kind in KINDS if names else ():
        kind.import_from_location()  # eqzoo's own names come first: the error of one that is taken is the user's
    for name in names:
        try:
            import_module(name)
        except ImportError as error:
            if may_fail:
                continue
            raise ValueError(
                f'Config {path}: custom_imports: {name!r} cannot be imported: {error}. '
                f'Modules are looked for in {path.parent}, in the current directory and on PYTHONPATH.'
            ) from error
        except Exception as error:  # a module is a program, and may raise anything
            # of a KeyError of the registry, the text without the quotes that Python puts around it
            registered = isinstance(error, KeyError) and ' already ' in str(error)
            reason = error.args[0] if registered else f'{type(error).__name__}: {error}'
            raise ValueError(
                f'Config {path}: custom_imports: {name!r} cannot be imported: {reason} (EQZOO_TRACEBACK=1 shows where).'
            ) from error


def _custom_modules(value: Any, path: Path) -> tuple[list[str], bool]:
    """Return the modules that `custom_imports` names, and whether one that cannot be imported is left out.

    Raises:
        ValueError: If it names none as Python does.
    """
    example = "expected the modules' names, such as custom_imports=dict(imports=['shear'])"
    settings = value if isinstance(value, Mapping) else {'imports': value or []}
    if 'imports' not in settings or set(settings) - {'imports', 'allow_failed_imports'}:
        raise ValueError(f'Config {path}: custom_imports: got the keys {", ".join(map(str, settings))}; {example}.')
    names = settings['imports'] or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list | tuple):
        raise ValueError(f'Config {path}: custom_imports: got {names!r}; {example}.')
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split('.')):
            meant = str(name).removesuffix('.py').replace('/', '.').strip('.')
            one = f"expected the module's name: {meant}" if meant.isidentifier() else example
            raise ValueError(f'Config {path}: custom_imports: got {name!r}; {one}.')
    return [*names], bool(settings.get('allow_failed_imports'))


def configs_folder() -> Path:
    """Return the folder `configs`: inside the installed package, or beside it in a checkout."""
    inside = _PACKAGE / 'configs'
    return inside if inside.is_dir() else _PACKAGE.parent / 'configs'


def leaf_configs(folder: Path) -> list[Path]:
    """Return the configs of runs and studies in `folder`: all but the bases and the parts of released models."""
    return sorted(path for path in folder.rglob('*.py') if not _NOT_OF_A_RUN & {*path.relative_to(folder).parts})


def default_work_dir(path: Path) -> str:
    """Return the work directory of a config that names none: `work_dirs/<its folder>/<its name>`."""
    return str(Path('work_dirs') / path.resolve().parent.name / path.stem)


def apply_override(config: Any, override: str) -> None:
    """Set one `a.b.0.c=value` in place.

    Raises:
        ValueError: If there is no `=`, the key is neither in the config nor an argument of the
            component there, or the type differs.
    """
    key, separator, text = override.partition('=')
    if not separator:
        raise ValueError(f'Override {override!r}: expected key=value, such as train_cfg.max_iters=1000.')
    set_key(config, key, parse_value(text))


def set_key(config: Any, key: str, value: Any, *, place: str = 'Override') -> None:
    """Set `a.b.0.c` of a config in place.

    Args:
        config: The config.
        key: Of a value that is there, or of an argument of the component there.
        value: The new value.
        place: Where the change stands, for messages.

    Raises:
        ValueError: If there is no such key, or the type differs.
    """
    *parents, last = key.split('.')
    node, where = config._cfg_dict if isinstance(config, Config) else config, ''
    above = []
    for part in parents:
        above.append((node, _existing(node, part, where, place)))
        node = node[above[-1][1]]
        where = f'{where}.{part}'.lstrip('.')
    # only a key that is not there needs the component's signature: importing its module takes seconds
    is_argument = isinstance(node, dict) and 'type' in node and last not in node
    defaults = argument_defaults(node['type']) if is_argument else {}
    if last in defaults:
        old = defaults[last]
    else:
        last = _existing({**node, **defaults} if is_argument else node, last, where, place)
        old = node[last]
    value = _same_type(key, old, value, place)
    while isinstance(node, tuple):  # which cannot be changed: another one takes its place
        items = [*node]
        items[last] = value
        value, (node, last) = tuple(items), above.pop()
    node[last] = value


def parse_value(text: str) -> Any:
    """Read a value as a config has it, dict(type="SGD") too; true, false and none in any case; other text is itself."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(_DictCalls().visit(ast.parse(text.lstrip(' \t'), mode='eval')))
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: thousands of brackets or signs
        return text


class _DictCalls(ast.NodeTransformer):
    """Replaces `dict(key=value)` by `{'key': value}`, which is a literal."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        names = [each.arg for each in node.keywords]
        if not isinstance(node.func, ast.Name) or node.func.id != 'dict' or node.args or None in names:
            return node
        return ast.Dict([ast.Constant(name) for name in names], [each.value for each in node.keywords])


def to_python(config: Mapping[str, Any]) -> str:
    """Return the source of a config file without bases that `load_config` reads back as `config`.

    Example:
        >>> print(to_python({'train_cfg': {'max_iters': 10}, 'names': {'a b': (1,)}}), end='')
        train_cfg = dict(max_iters=10)
        names = {'a b': (1,)}
    """
    return ''.join(f'{key} = {_source(value, len(key) + 3)}\n' for key, value in config.items())


def _source(value: Any, column: int, indent: int = 0) -> str:
    """Return `value` as Python, one item a line if it does not fit into a line from `column` on."""
    if isinstance(value, Mapping):
        keywords = all(isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key) for key in value)
        brackets = ('dict(', ')') if keywords else ('{', '}')
        items = [(f'{key}=' if keywords else f'{key!r}: ', item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        brackets = ('[', ']') if isinstance(value, list) else ('(', ',)' if len(value) == 1 else ')')
        items = [('', item) for item in value]
    else:
        # a class, such as the value of `type`, as the dotted path that the registry finds it by
        is_named = callable(value) and hasattr(value, '__qualname__')
        return repr(f'{value.__module__}.{value.__qualname__}' if is_named else value)
    line = f'{brackets[0]}{", ".join(f"{start}{_source(item, 0, -1)}" for start, item in items)}{brackets[1]}'
    if indent < 0 or not items or column + len(line) < _LINE_LENGTH:  # one column for a comma
        return line
    inner = indent + 4
    lines = [f'{" " * inner}{start}{_source(item, inner + len(start), inner)},' for start, item in items]
    return '\n'.join([brackets[0], *lines, f'{" " * indent}{brackets[1][-1]}'])


@contextmanager
def _bases_in_packages() -> Iterator[None]:
    """Let mmengine find the configs of a package: it asks pkg_resources, which setuptools no longer has."""
    original = config_module.get_installed_path
    config_module.get_installed_path = _package_folder
    try:
        yield
    finally:
        config_module.get_installed_path = original


def _package_folder(package: str) -> str:
    if package == 'eqzoo':
        return str(configs_folder().parent)  # in a checkout, eqzoo.configs is the folder configs beside eqzoo
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f'no package {package!r}')
    return next(iter(spec.submodule_search_locations))


def _has(config: Mapping[str, Any], key: str) -> bool:
    """Return whether `a.b` of a config is there and not None."""
    first, _, rest = key.partition('.')
    value = config.get(first)
    return value is not None and (not rest or (isinstance(value, Mapping) and _has(value, rest)))


def _check_names(config: Config, path: Path) -> None:
    """Refuse top-level names that look like a misspelt key."""
    for name in config:
        meant = nearest(name, KEYS, cutoff=0.85)
        if name not in KEYS and meant:
            raise ValueError(f'Config {path}: unknown key {name!r}. Did you mean {meant!r}?')


def _check_hooks(hooks: Any, path: Path) -> None:
    if not isinstance(hooks, Mapping):
        raise ValueError(
            f'Config {path}: custom_hooks: got a {type(hooks).__name__}; expected hooks by name, such as '
            "custom_hooks=dict(pictures=dict(type='PictureHook')); they run in that order."
        )


def _existing(node: Any, part: str, where: str, source: str) -> Any:
    """Return `part` as a key or index of `node`, which must have it."""
    place = where or 'the config'
    if isinstance(node, list | tuple):
        if re.fullmatch(r'-?\d+', part) and -len(node) <= int(part) < len(node):
            return int(part)
        raise ValueError(f'{source}: {place} is a list of {len(node)}; {part!r} is not one of its indices.')
    if not isinstance(node, dict):
        raise ValueError(f'{source}: {place} is {node!r}, which has no key {part!r}.')
    if part not in node:
        hint = did_you_mean(part, node)
        raise ValueError(f'{source}: {place} has no key {part!r}.{hint} Its keys: {", ".join(map(str, node))}.')
    return part


def _same_type(key: str, old: Any, new: Any, source: str) -> Any:
    """Refuse a value whose type could not have been meant; an int may become a float."""
    if old is None or new is None:
        return new
    both_numbers = type(old) in (int, float) and type(new) in (int, float)
    is_checked = type(old) in (bool, int, float, str) or isinstance(old, dict)
    if not is_checked or both_numbers or isinstance(new, dict if isinstance(old, dict) else type(old)):
        return new
    names = {bool: 'true or false', int: 'a number', float: 'a number', str: 'text'}
    raise ValueError(f'{source} {key}: expected {names.get(type(old), "a dict")} such as {old!r}, got {new!r}.')
