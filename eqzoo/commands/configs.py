"""`eqzoo configs`: list the configs that come with eqzoo, or print one."""

import ast

from eqzoo.config import configs_folder, find_config, leaf_configs, load_config, read_config, to_python


def configs(word: str | None = None, *, overrides: list[str], show: bool = False) -> None:
    """List the configs that come with eqzoo, each with its first line; or print one with its bases merged.

    Args:
        word: List only configs with this word in their name or first line; with --show, the config to print.
        overrides: With --show, keys of the config to set, as key=value.
        show: Print the config with its bases and overrides merged, as a file that could be run.
    """
    if show:
        if word is None:
            raise ValueError('configs --show: no config given; expected one, such as configs/demo/plain.py.')
        config = load_config(word, overrides)
        study = read_config(find_config(word)).get('study')
        print(to_python(config if study is None else dict(study=study)), end='')
        return
    if overrides:
        raise ValueError(f'configs: got {overrides[0]}, which sets a key of a config; expected --show with it.')
    folder = configs_folder()
    rows = {str(path.relative_to(folder.parent)): _first_line(path.read_text()) for path in leaf_configs(folder)}
    found = {name: line for name, line in rows.items() if word is None or word.lower() in f'{name} {line}'.lower()}
    if not found:
        raise ValueError(f'configs: none of the {len(rows)} has {word!r} in its name or first line.')
    width = max(map(len, found))
    print('\n'.join(f'{name:<{width}}  {line}' for name, line in found.items()))
    base = next(iter(found)).removesuffix('.py').replace('/', '.')
    print(f'\nThey are in {folder}. To build on one, in a config of your own:')
    print(f'\nfrom mmengine.config import read_base\n\nwith read_base():\n    from eqzoo.{base} import *')


def _first_line(source: str) -> str:
    return (ast.get_docstring(ast.parse(source)) or '').partition('\n')[0]
