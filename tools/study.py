"""Run a grid of configs over seeds and collect its table: python tools/study.py CONFIG [--seeds N] [--resume]."""

from eqzoo.commands.cli import run_tool

if __name__ == '__main__':
    run_tool('study')
