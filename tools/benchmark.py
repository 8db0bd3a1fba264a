"""Speed and memory as ratios within one run: python tools/benchmark.py eq-step CONFIG."""

from eqzoo.commands.benchmark import eq_step
from eqzoo.commands.parsing import run_subcommand

if __name__ == '__main__':
    run_subcommand({'eq-step': eq_step})
