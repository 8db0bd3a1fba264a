"""Measure latents and write their normalisation into a checkpoint: python tools/latent_stats.py CONFIG CHECKPOINT."""

from eqzoo.commands.cli import run_command

if __name__ == '__main__':
    run_command('latent-stats')
