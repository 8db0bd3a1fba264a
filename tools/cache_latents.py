"""Encode images to a latent store: python tools/cache_latents.py CONFIG [CHECKPOINT] [--out DIR] [key=value ...]."""

from eqzoo.commands.cli import run_tool

if __name__ == '__main__':
    run_tool('cache-latents')
