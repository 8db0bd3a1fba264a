"""`eqzoo configs`: what there is to train, without a checkout."""

import ast

from eqzoo.config import configs_folder, leaf_configs


def configs(word: str | None = None) -> None:
    """List the configs that come with eqzoo, each with its first line.

    Args:
        word: Only those that have it in their name or first line.
    """
    folder = configs_folder()
    rows = {str(path.relative_to(folder.parent)): _first_line(path.read_text()) for path in leaf_configs(folder)}
    shown = {name: line for name, line in rows.items() if word is None or word.lower() in f'{name} {line}'.lower()}
    if not shown:
        raise ValueError(f'configs: none of the {len(rows)} has {word!r} in its name or first line.')
    width = max(map(len, shown))
    print('\n'.join(f'{name:<{width}}  {line}' for name, line in shown.items()))
    base = next(iter(shown)).removesuffix('.py').replace('/', '.')
    print(f'\nThey are in {folder}. To build on one, in a config of your own:')
    print(f'\nfrom mmengine.config import read_base\n\nwith read_base():\n    from eqzoo.{base} import *')


def _first_line(source: str) -> str:
    return (ast.get_docstring(ast.parse(source)) or '').partition('\n')[0]
