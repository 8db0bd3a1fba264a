"""VQ-GAN, f16 with 1,024 codes of taming-transformers (ImageNet); 72,141,699 parameters."""

autoencoder = dict(type='VQAutoencoder', weights='eqzoo://vqgan-f16-1024')
