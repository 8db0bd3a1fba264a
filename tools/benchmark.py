"""Speed and memory as ratios within one run: python tools/benchmark.py BENCHMARK ..."""

from eqzoo.commands.cli import run_benchmark

if __name__ == '__main__':
    run_benchmark()
