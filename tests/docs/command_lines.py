"""Which function a command line calls, and with what."""

import ast
from functools import cache
from pathlib import Path

from markdown_pages import ROOT

from eqzoo.commands.cli import COMMANDS


def tool_of(words):
    """Return the tool's name, and the words after it; None if the command calls no tool of this project."""
    for place, word in enumerate(words):
        path = Path(word)
        if path.parts[:1] == ('tools',) and path.suffix == '.py':
            return path.stem, words[place + 1 :]
        if path.name == 'slurm_train.sh':
            return 'train', words[place + 1 :]
        if word == 'eqzoo' and (place == 0 or words[place - 1] == '-m'):
            return words[place + 1].replace('-', '_'), words[place + 2 :]
    return None


def function_of(tool, words):
    """Return what `tool` calls, and the words left for it."""
    called = _called_by(tool)
    if isinstance(called, dict):
        return called[words[0]], words[1:]
    return called, words


@cache
def _called_by(tool):
    """Return what the tool's file hands to `run`, a function, or to `run_subcommand`, functions by name.

    The file is not run: only what it imports of eqzoo, and that argument.
    """
    path = ROOT / 'tools' / f'{tool}.py'
    if not path.exists() and tool.replace('_', '-') in COMMANDS:  # `eqzoo configs` has no file there
        return COMMANDS[tool.replace('_', '-')].load()
    tree = ast.parse(path.read_text())
    nodes = list(ast.walk(tree))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module.startswith('eqzoo')]
    (call,) = (node for node in nodes if isinstance(node, ast.Call) and _name(node) in ('run', 'run_subcommand'))
    names = {}
    exec(compile(ast.Module(imports, []), tool, 'exec'), names)
    return eval(compile(ast.Expression(call.args[0]), tool, 'eval'), names)


def _name(call):
    return getattr(call.func, 'id', None)
