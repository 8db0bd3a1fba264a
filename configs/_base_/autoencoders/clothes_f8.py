"""The small KL autoencoder (f8, 16 channels) of `Clothes` that comes with eqzoo; 1,000,099 parameters."""

autoencoder = dict(
    type='KLAutoencoder',
    latent_channels=16,
    block_out_channels=(16, 32, 64, 64),
    layers_per_block=1,
    norm_num_groups=8,
    scale=0.30638,
    weights='eqzoo://clothes-f8',
)
