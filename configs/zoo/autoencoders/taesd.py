"""TAESD, the tiny stand-in for SD-VAE of madebyollin/taesd; 2,445,063 parameters. TAESDXL is the same network."""

autoencoder = dict(type='TinyAutoencoder', weights='eqzoo://taesd')
