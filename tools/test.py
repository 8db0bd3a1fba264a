"""Evaluate what a config describes: python tools/test.py CONFIG [CHECKPOINT] [key=value ...]."""

from eqzoo.commands.cli import run_tool

if __name__ == '__main__':
    run_tool('test')
