"""Latents of EQ-VAE, which the paper scales as SD-VAE's: 0.18215 is kept."""

weights = 'eqzoo://eq-vae'
store = 'data/latents/imagenet_256_sd_eq'
