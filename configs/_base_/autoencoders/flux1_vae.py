"""FLUX.1's VAE, KL f8 with 16 channels of black-forest-labs/FLUX.1-schnell (gated); 83,819,683 parameters."""

autoencoder = dict(
    type='KLAutoencoder',
    latent_channels=16,
    quant_conv=False,
    scale=0.3611,
    shift=0.1159,
    weights='eqzoo://flux1-vae',
)
