"""Speed and memory as ratios within one run: python tools/benchmark.py SUBCOMMAND ..."""

from eqzoo.commands.parsing import run_subcommand
from eqzoo.commands.table import BENCHMARKS

if __name__ == '__main__':
    run_subcommand({name: command.load() for name, command in BENCHMARKS.items()})
