"""The studies' tiny autoencoder, built as TAESD is: f4, 4 channels, no posterior."""

autoencoder = dict(type='TinyAutoencoder', latent_channels=4, num_blocks=(1, 2, 2), width=32)
