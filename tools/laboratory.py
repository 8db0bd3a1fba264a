"""Look into latent spaces: python tools/laboratory.py MODEL [MODEL ...] IMAGES --out DIR."""

from eqzoo.commands.cli import run
from eqzoo.commands.laboratory import laboratory

if __name__ == '__main__':
    run(laboratory)
