"""Convert an autoencoder's file: python tools/convert.py SRC DST --to {diffusers,ldm,eqzoo}."""

from eqzoo.commands.cli import run_command

if __name__ == '__main__':
    run_command('convert')
