"""Check that a GPU computes what it should: python tools/check_gpu.py [--smoke] [--only PART]."""

from eqzoo.commands.cli import run_tool

if __name__ == '__main__':
    run_tool('check-gpu')
