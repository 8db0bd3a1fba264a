"""The command line: `eqzoo COMMAND`, its parsers and its messages."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from eqzoo import __version__
from eqzoo.files import did_you_mean


class Command(NamedTuple):
    """A command: where its function is, as `module:function` in `eqzoo.commands`, and what it does."""

    function: str
    summary: str

    def load(self) -> Callable[..., Any]:
        """Return the function, importing its module."""
        module, name = self.function.split(':')
        return getattr(import_module(f'eqzoo.commands.{module}'), name)


COMMANDS = {
    'train': Command('train:train', 'train what a config describes'),
    'test': Command('test:test', 'print metrics, write metrics.json and report.html'),
    'cache-latents': Command('cache_latents:cache_latents', 'write the latents of images once, for generators'),
    'sample': Command('sample:sample', 'draw images from a generator'),
    'score': Command('score:score', 'FID, IS, precision, recall and more of a set of images'),
    'reference': Command('reference:reference', 'measure a reference set, for score and test'),
    'compare': Command('compare:compare', 'put results side by side, like with like'),
    'study': Command('study:study', 'a grid of autoencoders and generators over seeds, one table'),
    'inspect': Command('laboratory:inspect', 'look into the latent spaces of autoencoders, on one page'),
    'demo': Command('demo:demo', 'plain against equivariant fine-tuning, in minutes'),
    'configs': Command('configs:configs', 'list the configs that come with eqzoo'),
    'download': Command('download:download', 'fetch released weights, or list them'),
    'convert': Command('convert:convert', 'hand an autoencoder to other tools, or take theirs'),
    'latent-stats': Command('latent_stats:latent_stats', 'measure scale and shift of latents into a checkpoint'),
    'benchmark': Command('', 'speed and memory as ratios; eqzoo benchmark --help lists of what'),
}

BENCHMARKS = {
    'cache': Command('benchmark:cache', 'writing a latent store'),
    'coding': Command('benchmark:coding', 'encoding and decoding, of every autoencoder'),
    'eq-step': Command('benchmark:eq_step', 'a training step, beside the released way'),
    'frechet': Command('benchmark:frechet', 'the Fréchet distance, beside the usual ways'),
    'generator-step': Command('benchmark:generator_step', "a DiT's training step"),
    'growth': Command('benchmark:growth', 'start-up from a thousand to ten million images'),
    'rfid': Command('benchmark:rfid', 'a whole rFID, beside the usual way'),
    'sampling': Command('benchmark:sampling', "MaskGIT's sampling"),
    'speed': Command('benchmark:speed', "every hot path, and its share of the machine's peak"),
    'store': Command('benchmark:store', 'reading a latent store'),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Call the command that the first word names with the rest of the command line."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ['--version']:
        print(f'eqzoo {__version__}')
        return
    name = _chosen(words, COMMANDS, 'eqzoo')
    if name == 'benchmark':
        words = words[1:]
        chosen = _chosen(words, BENCHMARKS, 'eqzoo benchmark')
        _call(BENCHMARKS[chosen], words[1:], f'eqzoo benchmark {chosen}')
    else:
        _call(COMMANDS[name], words[1:], f'eqzoo {name}')


def _chosen(words: Sequence[str], commands: Mapping[str, Command], program: str) -> str:
    """Return the command that `words` begin with; list all or suggest the nearest, and end, if they do not."""
    if not words:
        sys.exit(_listing(commands, program))
    if words[0] in ('-h', '--help'):
        print(_listing(commands, program))
        sys.exit()
    if words[0] not in commands:
        hint = did_you_mean(words[0].replace('_', '-'), commands)
        sys.exit(f'error: {program}: unknown command {words[0]!r}.{hint} There are: {", ".join(commands)}.')
    return words[0]


def _listing(commands: Mapping[str, Command], program: str) -> str:
    width = max(map(len, commands))
    lines = [f'  {name:<{width}}  {command.summary}' for name, command in commands.items()]
    return '\n'.join([f'usage: {program} COMMAND ...   ({program} COMMAND --help says more)', '', *lines])


def _call(command: Command, words: Sequence[str], program: str) -> None:
    from eqzoo.commands.parsing import run

    try:
        run(command.load(), words, name=program)
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.exit(_without_checkout(end.code))
        raise


def _without_checkout(message: str) -> str:
    """Name commands as they were called: messages advise `python tools/NAME.py`, which is only in a checkout."""
    return re.sub(r'(?:python )?\btools/(\w+)\.py', lambda found: f'eqzoo {found[1].replace("_", "-")}', message)
