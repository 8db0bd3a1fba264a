"""Command lines: `CONFIG [key=value ...] [--options]`, and a user's mistakes as one message."""

import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import docstring_parser
from jsonargparse import ArgumentParser

_OVERRIDE = re.compile(r'[A-Za-z_][\w.]*=')


def run(function: Callable[..., Any], argv: Sequence[str] | None = None, *, name: str | None = None) -> Any:
    """Call `function` with the command line's arguments.

    Positional parameters are positional; keyword-only ones are options, bools among them
    flags. Words of the form `key=value` go, wherever they stand, to the parameter `overrides`.

    A `ValueError` or `OSError` ends the program with its message on stderr and status 1;
    with `EQZOO_TRACEBACK=1` it is raised.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    overrides = [word for word in argv if _OVERRIDE.match(word)]
    parser = ArgumentParser(prog=name, description=_description(function))
    parameters = inspect.signature(function).parameters
    by_hand = {name for name, parameter in parameters.items() if _is_flag(parameter) or _is_optional(parameter)}
    parser.add_function_arguments(function, as_group=False, as_positional=True, skip={'overrides', *by_hand})
    _add_by_hand(parser, {name: parameters[name] for name in parameters if name in by_hand}, function)
    arguments = {}
    if 'overrides' in parameters:
        parser.epilog = 'key=value sets a key of the config, such as train_cfg.max_iters=1000.'
        argv = [word for word in argv if not _OVERRIDE.match(word)]
        arguments['overrides'] = overrides
    arguments |= parser.parse_args(argv).as_dict()
    try:
        return function(**arguments)
    except (ValueError, OSError) as error:
        if os.environ.get('EQZOO_TRACEBACK') == '1':
            raise
        sys.exit(f'error: {error}')


def run_subcommand(functions: Mapping[str, Callable[..., Any]], argv: Sequence[str] | None = None) -> Any:
    """Call the function that the first word names with the rest of the command line, as `run` does."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] not in functions:
        asked = f'got {argv[0]!r}' if argv and not argv[0].startswith('-') else 'none given'
        sys.exit(f'usage: {Path(sys.argv[0]).name} {{{",".join(functions)}}} ...  (subcommand: {asked}; --help after one)')
    return run(functions[argv[0]], argv[1:], name=f'{Path(sys.argv[0]).name} {argv[0]}')


def _is_flag(parameter: inspect.Parameter) -> bool:
    return parameter.annotation is bool


def _is_optional(parameter: inspect.Parameter) -> bool:
    return parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.default is not parameter.empty


def _add_by_hand(
    parser: ArgumentParser, parameters: Mapping[str, inspect.Parameter], function: Callable[..., Any]
) -> None:
    """Add what jsonargparse would add otherwise: flags without a value, positionals that may be left out."""
    helps = {each.arg_name: each.description for each in docstring_parser.parse(function.__doc__ or '').params}
    for name, parameter in parameters.items():
        if _is_flag(parameter):
            parser.add_argument(f'--{name.replace("_", "-")}', action='store_true', help=helps.get(name))
        else:
            parser.add_argument(name, nargs='?', default=parameter.default, help=helps.get(name))


def _description(function: Callable[..., Any]) -> str:
    return (function.__doc__ or '').strip().split('\n\n')[0]
