"""Train what a config describes: python tools/train.py CONFIG [key=value ...] [--smoke] [--dry-run] [--resume]."""

from eqzoo.commands.cli import run_tool

if __name__ == '__main__':
    run_tool('train')
