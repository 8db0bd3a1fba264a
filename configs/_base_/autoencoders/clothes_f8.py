"""The autoencoder of `Clothes` that comes with eqzoo: f8, 32 channels, as TAEF2 but smaller; 903,011 parameters."""

autoencoder = dict(
    type='TinyAutoencoder',
    latent_channels=32,
    num_blocks=(0, 1, 2, 3),
    width=48,
    scale=4.2844,
    weights='eqzoo://clothes-f8',
)
