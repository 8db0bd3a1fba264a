"""Results side by side, like with like: python tools/compare.py A/metrics.json B/metrics.json ... [--out DIR]."""

from eqzoo.commands.cli import run_tool

if __name__ == '__main__':
    run_tool('compare')
