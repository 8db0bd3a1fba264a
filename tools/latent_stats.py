"""Measure latents and write their normalisation into a checkpoint: python tools/latent_stats.py CONFIG CHECKPOINT."""

from eqzoo.commands.cli import run_tool

if __name__ == '__main__':
    run_tool('latent-stats')
