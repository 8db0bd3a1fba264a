"""Fetch released weights: python tools/download.py NAME, or --list."""

from eqzoo.commands.download import download
from eqzoo.commands.parsing import run

if __name__ == '__main__':
    run(download)
