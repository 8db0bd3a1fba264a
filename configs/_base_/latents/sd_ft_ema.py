"""Latents of SD-VAE-FT-EMA, whose encoder is SD-VAE's: those of DiT's, SiT's and REPA's published numbers."""

weights = 'eqzoo://sd-vae-ft-ema'
store = 'data/latents/imagenet_256_sd_ft_ema'
