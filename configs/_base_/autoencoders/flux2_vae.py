"""FLUX.2's VAE, KL f8 with 32 channels of black-forest-labs/FLUX.2-klein-4B; 84,046,115 parameters.

The normalisation is in its weights: running statistics of a batch norm.
"""

autoencoder = dict(type='DiffusersAutoencoder', class_name='AutoencoderKLFlux2', weights='eqzoo://flux2-vae')
