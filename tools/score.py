"""Score samples against a reference: python tools/score.py SAMPLES REFERENCE [--extractor EfficientNetLite0]."""

from eqzoo.commands.cli import run_tool

if __name__ == '__main__':
    run_tool('score')
