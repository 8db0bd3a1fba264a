"""TAESD3, the tiny stand-in for SD3-VAE of madebyollin/taesd3; 2,458,899 parameters. TAEF1 is the same network."""

autoencoder = dict(type='TinyAutoencoder', latent_channels=16, weights='eqzoo://taesd3')
