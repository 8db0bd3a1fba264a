"""The command line: `eqzoo COMMAND CONFIG [key=value ...] [--options]`, and errors in one line.

A command's parser is made by jsonargparse from the signature and the docstring of its function. The two tables below
stand in for its subcommands, which would need the functions of all commands, and so all their modules, for any of them.
"""

import inspect
import os
import re
import select
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Union, get_args, get_origin

from eqzoo import __version__
from eqzoo.files import did_you_mean, expand_home
from eqzoo.text import printable

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


class LazyCommand(NamedTuple):
    """A command: the place of its function, as `module:function` in `eqzoo.commands`, and a line about it."""

    function: str
    summary: str

    def load(self) -> Callable[..., Any]:
        """Return the function, importing its module."""
        module, name = self.function.split(':')
        return getattr(import_module(f'eqzoo.commands.{module}'), name)


COMMANDS = {
    'train': LazyCommand('train:train', 'train an autoencoder or a generator'),
    'test': LazyCommand('test:test', 'print metrics, write metrics.json and report.html'),
    'cache-latents': LazyCommand('cache_latents:cache_latents', 'encode images once, for generators'),
    'sample': LazyCommand('sample:sample', 'generate images'),
    'score': LazyCommand('score:score', 'measure FID, IS, precision, recall and more of a set of images'),
    'reference': LazyCommand('reference:reference', 'measure a reference set, for score and test'),
    'compare': LazyCommand('compare:compare', 'compare test results side by side'),
    'study': LazyCommand('study:study', 'train and measure a grid of autoencoders and generators over seeds'),
    'laboratory': LazyCommand('laboratory:laboratory', 'show the latent spaces of autoencoders on one page'),
    'demo': LazyCommand('demo:demo', 'compare plain and equivariant fine-tuning, in minutes'),
    'configs': LazyCommand('configs:configs', 'list the configs that come with eqzoo, or print one with its bases'),
    'download': LazyCommand('download:download', 'download released weights, or list them'),
    'convert': LazyCommand('convert:convert', 'convert an autoencoder to and from the formats of other tools'),
    'latent-stats': LazyCommand('latent_stats:latent_stats', 'measure scale and shift of the latents of a checkpoint'),
    'check-gpu': LazyCommand('check_gpu:check_gpu', 'check in two minutes whether a GPU computes correctly'),
    'env': LazyCommand('env:env', 'print versions and devices, for a bug report'),
    'benchmark': LazyCommand('', 'measure speed and memory; eqzoo benchmark --help lists the benchmarks'),
}

BENCHMARKS = {
    'cache': LazyCommand('benchmark.data:cache', 'writing a latent store'),
    'coding': LazyCommand('benchmark.inference:coding', 'encoding and decoding with every autoencoder'),
    'compare': LazyCommand(
        'benchmark.comparison:compare_files', 'compare two files of --out: which ratios became worse'
    ),
    'decoding': LazyCommand('benchmark.data:decoding', 'decoding of photographs, compared with Pillow'),
    'eq-step': LazyCommand('benchmark.training:eq_step', 'a training step, compared with the released code'),
    'frechet': LazyCommand('benchmark.metrics:frechet', 'the Fréchet distance, compared with scipy'),
    'generator-step': LazyCommand('benchmark.training:generator_step', "a DiT's training step"),
    'gpu': LazyCommand('benchmark.machine:gpu', 'everything on a GPU, in ten minutes'),
    'gradients': LazyCommand('benchmark.training:gradients', 'averaging gradients over processes'),
    'growth': LazyCommand('benchmark.startup:growth', 'start-up time with a thousand to ten million images'),
    'loading': LazyCommand('benchmark.data:loading', 'reading shards and tables, compared with their own packages'),
    'memory': LazyCommand('benchmark.training:memory', 'memory of a training step, and what fits on a GPU'),
    'networks': LazyCommand('benchmark.metrics:networks', 'metric networks, compared with their packages'),
    'rfid': LazyCommand('benchmark.metrics:rfid', 'rFID, compared with saving PNGs'),
    'sampling': LazyCommand('benchmark.inference:sampling', "MaskGIT's sampling"),
    'speed': LazyCommand('benchmark.machine:speed', "encoding, training, sampling, FID; share of the machine's peak"),
    'startup': LazyCommand('benchmark.startup:startup', 'CPU time of commands and smoke runs'),
    'store': LazyCommand('benchmark.data:store', 'reading a latent store'),
}

_RENAMED = {'inspect': 'laboratory'}

_OVERRIDE = re.compile(r'[A-Za-z_][\w.]*=')

_NEGATIVE = re.compile(r'-[\d.]')

_OUT_OF_MEMORY = (
    '\nTo need less: model.micro_batch_size=N, model.precision=bf16, checkpointing=true of a network, or a smaller '
    'batch_size.'
)

# jsonargparse's message about the value of an option: the option, and further down the value.
_WRONG_VALUE = re.compile(r'Parser key "(\w+)":.*(?:Got value|Given value): (.*)', re.DOTALL)

_REQUIRED = 'the following arguments are required: '

# Messages of torch about sizes that no memory holds.
_NO_MEMORY = re.compile(r"can't allocate memory|[Ss]torage size calculation overflowed|not enough memory|overflow")

# The message of torch when the system has killed a process of a loader.
_LOST_WORKER = re.compile(r'DataLoader worker \(.*\) (is killed|exited)')


# Whether the program is `eqzoo`, and not a script in tools/ of a checkout.
_is_eqzoo = ContextVar('_is_eqzoo', default=False)


def main(argv: Sequence[str] | None = None) -> None:
    """Call the command named by the first word with the rest of the command line."""
    words = list(sys.argv[1:] if argv is None else argv)
    with _one_line_on_interrupt():
        _main(words)


def run_tool(name: str) -> None:
    """Call the command `name` with the program's command line, as the scripts in tools/ do."""
    with _one_line_on_interrupt():  # its modules are loaded in here: importing torch takes seconds
        run(COMMANDS[name].load())


def _main(words: list[str]) -> None:
    if words[:1] == ['--version']:
        print(f'eqzoo {__version__}')
        return
    name = _chosen(words, COMMANDS, 'eqzoo')
    before = _is_eqzoo.set(True)
    try:
        if name == 'benchmark':
            run_benchmark(words[1:], program='eqzoo benchmark')
        else:
            run(COMMANDS[name].load(), words[1:], program=f'eqzoo {name}')
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.exit(advice(end.code))
        raise
    finally:
        _is_eqzoo.reset(before)


def run_benchmark(argv: Sequence[str] | None = None, *, program: str | None = None) -> None:
    """Call the benchmark named by the first word with the rest of the command line."""
    words = list(sys.argv[1:] if argv is None else argv)
    program = program or os.path.basename(sys.argv[0])  # noqa: PTH119
    name = _chosen(words, BENCHMARKS, program)
    with _one_line_on_interrupt():
        run(BENCHMARKS[name].load(), words[1:], program=f'{program} {name}')


def run(function: Callable[..., Any], argv: Sequence[str] | None = None, *, program: str | None = None) -> Any:
    """Call `function` with the arguments of a command line.

    A `ValueError`, `OSError` or `FloatingPointError`, a lack of memory and a killed process of a
    loader end the program with a message on stderr and status 1; with `EQZOO_TRACEBACK=1` they are raised.

    Args:
        function: Its positional parameters are words, a list being one or more; its keyword-only
            parameters are options, those of type bool without a value. Words of the form
            `key=value`, at any place, go to the parameter `overrides`.
        argv: The words; `sys.argv` by default.
        program: The name in the usage line; the script's by default.
    """
    arguments = parse(function, sys.argv[1:] if argv is None else argv, program=program)
    try:
        return function(**arguments)
    except (ValueError, OSError, FloatingPointError, RuntimeError, MemoryError) as error:
        message = _message(error)
        if isinstance(error, BrokenPipeError) or message is None or os.environ.get('EQZOO_TRACEBACK') == '1':
            raise
        sys.exit(f'error: {printable(message, lines=True)}')


@contextmanager
def _one_line_on_interrupt() -> Iterator[None]:
    """End the program with a shell's exit status: on Ctrl-C with one line, and silently if nobody reads its output."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # another one, while the interpreter ends, is silent
        print('interrupted', file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        sys.exit(128 + signal.SIGPIPE)


def _nobody_reads() -> bool:
    """Return whether the reader of the output has gone, as of `eqzoo configs | head`; the rest is then silent."""
    poll = select.poll()
    poll.register(sys.__stdout__.fileno(), 0)  # errors are reported in any case
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    # the interpreter flushes once more when it ends
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())
    return True


def parse(function: Callable[..., Any], argv: Sequence[str], *, program: str | None = None) -> dict[str, Any]:
    """Return the arguments with which `run` calls `function` for the command line `argv`."""
    parser, argv = _parser_of(function, program), _with_values(function, argv)
    if 'overrides' not in inspect.signature(function).parameters:
        arguments = parser.parse_args(argv).as_dict()
    else:
        overrides = [word for word in argv if _OVERRIDE.match(word)]
        words = [word for word in argv if not _OVERRIDE.match(word)]
        arguments = {'overrides': overrides, **parser.parse_args(words).as_dict()}
    _check_options(function, arguments)
    return {name: value if name == 'overrides' else _expanded(value) for name, value in arguments.items()}


def _with_values(function: Callable[..., Any], argv: Sequence[str]) -> list[str]:
    """Return a command line in which a value that looks like an override or an option is joined to its option.

    Example:
        >>> def sample(*, out: str, angles: str): ...
        >>> _with_values(sample, ['--out', 'cfg=1.5', '--angles', '-5,5', 'seed=1'])
        ['--out=cfg=1.5', '--angles=-5,5', 'seed=1']
    """
    parameters = inspect.signature(function).parameters.values()
    options = [each for each in parameters if each.kind is each.KEYWORD_ONLY]
    taking = {_option(each.name) for each in options if each.annotation is not bool}
    words: list[str] = []
    for word in argv:
        is_value = bool(words) and words[-1] in taking
        if is_value and (_OVERRIDE.match(word) or _NEGATIVE.match(word)):
            words[-1] += f'={word}'
        else:
            words.append(word)
    return words


def _expanded(value: Any) -> Any:
    """Return the value of an option, or a list of words, with the home folder in the place of a leading `~`."""
    if isinstance(value, list):
        return [_expanded(each) for each in value]
    return str(expand_home(value)) if isinstance(value, str) and value.startswith('~') else value


def _check_options(function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """End the program with a message if a number is out of the range that the function's annotation states."""
    from eqzoo.registry.ranges import check_value  # here: `eqzoo --help` needs no registry

    for name, parameter in inspect.signature(function).parameters.items():
        if name in arguments and arguments[name] is not parameter.default:
            try:
                check_value(_option(name), _unless_left_out(parameter.annotation), arguments[name])
            except ValueError as error:
                sys.exit(f'error: {error}')


def _parser_of(function: Callable[..., Any], program: str | None) -> 'ArgumentParser':
    """Return jsonargparse's parser of `function`, with options as shells have them."""
    from jsonargparse import ArgumentParser

    from eqzoo.registry.ranges import check_value  # here: `eqzoo --help` needs no registry

    parameters = inspect.signature(function).parameters
    is_word = {name: each.kind is each.POSITIONAL_OR_KEYWORD for name, each in parameters.items()}

    def place(name: str) -> str:
        return _option(name) if not is_word.get(name, True) else name.upper()

    class Parser(ArgumentParser):
        def add_argument(self, flag: str, *aliases: str, **options: Any) -> Any:
            # jsonargparse writes --dry_run, --smoke=true, --checkpoint=FILE and RESULTS as '[a, b]'
            name = flag.removeprefix('--')
            if name not in parameters:  # --help
                return super().add_argument(flag, *aliases, **options)
            if parameters[name].annotation is bool:
                return super().add_argument(_option(name), action='store_true', help=options['help'])
            if parameters[name].annotation == list[str]:
                return super().add_argument(name, type=str, nargs='+', help=options['help'])
            if _unless_left_out(parameters[name].annotation) is str:
                options.pop('action', None)  # of `str | None`, which reads null as None
                options['type'] = str
            if is_word[name] and flag != name:
                return super().add_argument(name, nargs='?', **options)
            return super().add_argument(name if is_word[name] else _option(name), **options)

        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            """End the program with one line in place of jsonargparse's list of types."""
            found = _WRONG_VALUE.search(message)
            if message.startswith(_REQUIRED):
                lacking = message.removeprefix(_REQUIRED).split(', ')
                message = f'needed: {", ".join(place(name) for name in lacking)}'
            elif found is not None and found[1] in parameters:
                name = found[1]
                try:
                    check_value(place(name), _unless_left_out(parameters[name].annotation), found[2])
                except ValueError as error:
                    message = str(error)
            print(f'error: {message.rstrip(".")}. {self.prog} --help lists the options.', file=sys.stderr)
            sys.exit(2)  # as shells' own commands do

    summary = (function.__doc__ or '').strip().split('\n\n')[0]
    parser = Parser(prog=program, description=summary, allow_abbrev=False)  # a misspelt option is an error
    parser.add_function_arguments(function, as_group=False, as_positional=True, skip={'overrides'})
    if 'overrides' in parameters:
        parser.epilog = 'key=value sets a key of the config, such as train_cfg.max_iters=1000.'
    return parser


def _unless_left_out(annotation: Any) -> Any:
    """Return the type of an option's values; `| None` stands for an option that is left out."""
    kinds = [each for each in get_args(annotation) if each is not NoneType]
    return Union[tuple(kinds)] if get_origin(annotation) in (Union, UnionType) else annotation  # noqa: UP007


def _option(name: str) -> str:
    return f'--{name.replace("_", "-")}'


def _chosen(words: Sequence[str], commands: Mapping[str, LazyCommand], program: str) -> str:
    """Return the command that `words` begin with; otherwise list all or suggest the nearest, and exit."""
    if not words:
        sys.exit(_listing(commands, program))
    name = words[0]
    if name in ('-h', '--help'):
        print(_listing(commands, program))
        sys.exit()
    if name in _RENAMED and commands is COMMANDS:
        sys.exit(f'error: {program}: {name!r} is now called {_RENAMED[name]!r}: {program} {_RENAMED[name]} --help')
    if name not in commands:
        hint = did_you_mean(name.replace('_', '-'), commands)
        sys.exit(f'error: {program}: unknown command {name!r}.{hint} Expected one of: {", ".join(commands)}.')
    return name


def _listing(commands: Mapping[str, LazyCommand], program: str) -> str:
    width = max(map(len, commands))
    lines = [f'  {name:<{width}}  {command.summary}' for name, command in commands.items()]
    return '\n'.join([f'usage: {program} COMMAND ...   ({program} COMMAND --help lists its options)', '', *lines])


def _message(error: Exception) -> str | None:
    """Return the message for an error that a user can cause; None for others."""
    text = str(error)
    if isinstance(error, RuntimeError):
        # not imported for this: an error of torch's own cannot be raised without torch
        if isinstance(error, getattr(sys.modules.get('torch'), 'OutOfMemoryError', ())):
            return f'{text}{_OUT_OF_MEMORY}'
        if _NO_MEMORY.search(text):
            return f'too little memory ({text.splitlines()[0]}).{_OUT_OF_MEMORY}'
        if _LOST_WORKER.match(text):
            return f'{text} Too little memory, or /dev/shm too small: lower num_workers of the dataloader.'
        return None
    if isinstance(error, MemoryError):
        return f'too little memory{text and f" ({text})"}.{_OUT_OF_MEMORY}'
    # an error raised in a process of a loader arrives with that process's traceback as its text
    return text.strip().splitlines()[-1].split(': ', 1)[-1] if 'Original Traceback' in text else text


def advice(message: str) -> str:
    """Return a message, with `eqzoo NAME` in place of `python tools/NAME.py` if the program is `eqzoo`.

    An installed eqzoo has no folder tools.
    """
    if not _is_eqzoo.get():
        return message
    return re.sub(r'(?:python )?\btools/(\w+)\.py', lambda found: f'eqzoo {found[1].replace("_", "-")}', message)
