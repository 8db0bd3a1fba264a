"""Command lines: `CONFIG [key=value ...] [--options]`, and a user's mistakes as one message."""

import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import docstring_parser
import torch
from jsonargparse import ArgumentParser

_OVERRIDE = re.compile(r'[A-Za-z_][\w.]*=')

_OUT_OF_MEMORY = (
    '\nTo need less: model.micro_batch_size=N, model.precision=bf16, checkpointing=true of a network, or a smaller '
    'batch_size.'
)


# What torch says when the system has killed a process of a loader.
_LOST_WORKER = re.compile(r'DataLoader worker \(.*\) (is killed|exited)')


def run(function: Callable[..., Any], argv: Sequence[str] | None = None, *, name: str | None = None) -> Any:
    """Call `function` with the command line's arguments.

    Positional parameters are positional, a list one or more words; keyword-only ones are
    options, bools among them flags. Words of the form `key=value` go, wherever they stand, to
    the parameter `overrides`.

    A `ValueError`, `OSError` or `FloatingPointError`, a lack of memory and a loader's lost process
    end the program with a message on stderr and status 1; with `EQZOO_TRACEBACK=1` it is raised.
    """
    arguments = parse(function, sys.argv[1:] if argv is None else argv, name=name)
    try:
        return function(**arguments)
    except (ValueError, OSError, FloatingPointError, torch.OutOfMemoryError) as error:
        if os.environ.get('EQZOO_TRACEBACK') == '1':
            raise
        sys.exit(f'error: {_said(error)}{_OUT_OF_MEMORY if isinstance(error, torch.OutOfMemoryError) else ""}')
    except RuntimeError as error:
        if os.environ.get('EQZOO_TRACEBACK') == '1' or not _LOST_WORKER.match(str(error)):
            raise
        sys.exit(f'error: {error} Too little memory, or /dev/shm too small: lower num_workers of the dataloader.')
    except KeyboardInterrupt:
        sys.exit('interrupted')


def parse(function: Callable[..., Any], argv: Sequence[str], *, name: str | None = None) -> dict[str, Any]:
    """Return the arguments that `run` calls `function` with for the command line `argv`."""
    overrides = [word for word in argv if _OVERRIDE.match(word)]
    parser = ArgumentParser(prog=name, description=_description(function), allow_abbrev=False)  # no typo passes
    _add_parameters(parser, function)
    if 'overrides' not in inspect.signature(function).parameters:
        return parser.parse_args(list(argv)).as_dict()
    parser.epilog = 'key=value sets a key of the config, such as train_cfg.max_iters=1000.'
    words = [word for word in argv if not _OVERRIDE.match(word)]
    return {'overrides': overrides, **parser.parse_args(words).as_dict()}


def run_subcommand(functions: Mapping[str, Callable[..., Any]], argv: Sequence[str] | None = None) -> Any:
    """Call the function that the first word names with the rest of the command line, as `run` does."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] not in functions:
        asked = f'got {argv[0]!r}' if argv and not argv[0].startswith('-') else 'none given'
        sys.exit(
            f'usage: {Path(sys.argv[0]).name} {{{",".join(functions)}}} ...  (subcommand: {asked}; --help after one)'
        )
    return run(functions[argv[0]], argv[1:], name=f'{Path(sys.argv[0]).name} {argv[0]}')


def _said(error: BaseException) -> str:
    """Return an error's message; of one that a loader's process raised, what it raised itself."""
    text = str(error)
    return text.strip().splitlines()[-1].split(': ', 1)[-1] if 'Original Traceback' in text else text


def _add_parameters(parser: ArgumentParser, function: Callable[..., Any]) -> None:
    """Add the parameters of `function`, their types from its annotations and their help from its docstring."""
    helps = {each.arg_name: each.description for each in docstring_parser.parse(function.__doc__ or '').params}
    types = get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        shown = dict(help=helps.get(name))
        if name == 'overrides':
            continue
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and get_origin(types[name]) is list:
            parser.add_argument(name, type=get_args(types[name])[0], nargs='+', **shown)
        elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            optional = {} if parameter.default is parameter.empty else dict(nargs='?', default=parameter.default)
            parser.add_argument(name, type=types[name], **optional, **shown)
        elif types[name] is bool:
            parser.add_argument(_option(name), action='store_true', **shown)
        else:
            required = parameter.default is parameter.empty
            default = None if required else parameter.default
            parser.add_argument(_option(name), type=types[name], default=default, required=required, **shown)


def _option(name: str) -> str:
    return f'--{name.replace("_", "-")}'


def _description(function: Callable[..., Any]) -> str:
    return (function.__doc__ or '').strip().split('\n\n')[0]
