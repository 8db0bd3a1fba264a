"""The demo's KL autoencoder: f4, 4 channels."""

autoencoder = dict(
    type='KLAutoencoder',
    latent_channels=4,
    block_out_channels=(16, 32, 64),
    layers_per_block=1,
    norm_num_groups=8,
)
