"""Look into latent spaces: python tools/laboratory.py MODEL [MODEL ...] IMAGES --out DIR."""

from eqzoo.commands.cli import run_command

if __name__ == '__main__':
    run_command('laboratory')
