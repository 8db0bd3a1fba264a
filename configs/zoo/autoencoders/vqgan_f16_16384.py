"""VQ-GAN, f16 with 16,384 codes of taming-transformers (ImageNet); 76,073,859 parameters."""

autoencoder = dict(type='VQAutoencoder', num_codes=16384, weights='eqzoo://vqgan-f16-16384')
