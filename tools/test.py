"""Evaluate what a config describes: python tools/test.py CONFIG [CHECKPOINT] [key=value ...]."""

from eqzoo.commands.cli import run_command

if __name__ == '__main__':
    run_command('test')
