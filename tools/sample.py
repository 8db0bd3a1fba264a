"""Draw images from a generator: python tools/sample.py CONFIG [CHECKPOINT] --out DIR|FILE.npz [key=value ...]."""

from eqzoo.commands.cli import run_tool

if __name__ == '__main__':
    run_tool('sample')
