"""Measure a reference set: python tools/reference.py IMAGES OUT.npz [--extractor EfficientNetLite0]."""

from eqzoo.commands.cli import run
from eqzoo.commands.reference import reference

if __name__ == '__main__':
    run(reference)
