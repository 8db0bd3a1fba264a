"""Fetch released weights: python tools/download.py NAME, or --list."""

from eqzoo.commands.cli import run
from eqzoo.commands.download import download

if __name__ == '__main__':
    run(download)
