"""SD-VAE, the KL f8 autoencoder with 4 channels of CompVis/latent-diffusion (kl-f8); 83,653,863 parameters."""

autoencoder = dict(type='KLAutoencoder', scale=0.18215, weights='eqzoo://sd-vae')
