"""Fetch released weights: python tools/download.py NAME, or --list."""

from eqzoo.commands.cli import run_command

if __name__ == '__main__':
    run_command('download')
