"""TAESD, the tiny stand-in for SD-VAE of madebyollin/taesd; 2,445,063 parameters. TAESDXL has the same architecture."""

autoencoder = dict(type='TinyAutoencoder', weights='eqzoo://taesd')
