"""SDXL-VAE, the KL f8 autoencoder with 4 channels of stabilityai/sdxl-vae, built like SD-VAE; 83,653,863 parameters."""

autoencoder = dict(type='KLAutoencoder', scale=0.13025, weights='eqzoo://sdxl-vae')
