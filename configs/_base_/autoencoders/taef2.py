"""TAEF2, the tiny f8 autoencoder with 32 channels of madebyollin/taesd; 2,677,027 parameters."""

autoencoder = dict(
    type='TinyAutoencoder',
    latent_channels=32,
    pooled=True,
    weights=['eqzoo://taef2/taef2_encoder.pth', 'eqzoo://taef2/taef2_decoder.pth'],
)
