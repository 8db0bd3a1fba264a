"""TAESD, the tiny stand-in for SD-VAE of madebyollin/taesd; 2,445,063 parameters. TAESDXL is built alike."""

autoencoder = dict(type='TinyAutoencoder', weights='eqzoo://taesd')
