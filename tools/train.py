"""Train what a config describes: python tools/train.py CONFIG [key=value ...] [--smoke] [--dry_run] [--resume]."""

from eqzoo.commands.parsing import run
from eqzoo.commands.train import train

if __name__ == '__main__':
    run(train)
