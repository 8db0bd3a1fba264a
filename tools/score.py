"""Score samples against a reference: python tools/score.py SAMPLES REFERENCE [--extractor EfficientNetLite0]."""

from eqzoo.commands.cli import run_command

if __name__ == '__main__':
    run_command('score')
