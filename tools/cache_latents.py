"""Encode images to a latent store: python tools/cache_latents.py CONFIG [CHECKPOINT] [--out DIR] [key=value ...]."""

from eqzoo.commands.cache_latents import cache_latents
from eqzoo.commands.cli import run

if __name__ == '__main__':
    run(cache_latents)
