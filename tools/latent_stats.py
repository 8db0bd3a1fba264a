"""Measure latents and write their normalisation into a checkpoint: python tools/latent_stats.py CONFIG CHECKPOINT."""

from eqzoo.commands.cli import run
from eqzoo.commands.latent_stats import latent_stats

if __name__ == '__main__':
    run(latent_stats)
