"""Look into latent spaces: python tools/laboratory.py MODEL [MODEL ...] IMAGES --out DIR."""

from eqzoo.commands.cli import run_tool

if __name__ == '__main__':
    run_tool('laboratory')
