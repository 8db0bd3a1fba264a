"""Measure latents and write their normalisation into a checkpoint: python tools/latent_stats.py CONFIG CHECKPOINT."""

from eqzoo.commands.latent_stats import latent_stats
from eqzoo.commands.parsing import run

if __name__ == '__main__':
    run(latent_stats)
