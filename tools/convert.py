"""Convert an autoencoder's file: python tools/convert.py SRC DST --to {diffusers,ldm,eqzoo}."""

from eqzoo.commands.convert import convert
from eqzoo.commands.parsing import run

if __name__ == '__main__':
    run(convert)
