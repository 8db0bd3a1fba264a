"""Latent generators; there are none yet."""
