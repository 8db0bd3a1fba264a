"""Convert an autoencoder's file: python tools/convert.py SRC DST --to {diffusers,ldm,eqzoo}."""

from eqzoo.commands.cli import run
from eqzoo.commands.convert import convert

if __name__ == '__main__':
    run(convert)
