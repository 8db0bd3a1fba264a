"""Measure a reference set: python tools/reference.py IMAGES OUT.npz [--extractor EfficientNetLite0]."""

from eqzoo.commands.cli import run_tool

if __name__ == '__main__':
    run_tool('reference')
