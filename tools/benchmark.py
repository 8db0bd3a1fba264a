"""Speed and memory as ratios within one run: python tools/benchmark.py SUBCOMMAND ..."""

from eqzoo.commands.cli import BENCHMARKS
from eqzoo.commands.parsing import run_subcommand

if __name__ == '__main__':
    run_subcommand({name: command.load() for name, command in BENCHMARKS.items()})
