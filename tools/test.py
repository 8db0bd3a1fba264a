"""Evaluate what a config describes: python tools/test.py CONFIG [CHECKPOINT] [key=value ...]."""

from eqzoo.commands.cli import run
from eqzoo.commands.test import test

if __name__ == '__main__':
    run(test)
