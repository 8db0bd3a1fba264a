"""Fetch released weights: python tools/download.py NAME, or --list."""

from eqzoo.commands.cli import run_tool

if __name__ == '__main__':
    run_tool('download')
