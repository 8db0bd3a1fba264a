"""SD3-VAE, KL f8 with 16 channels of stabilityai/stable-diffusion-3-medium-diffusers (gated); 83,819,683 parameters."""

autoencoder = dict(
    type='KLAutoencoder',
    latent_channels=16,
    quant_conv=False,
    scale=1.5305,
    shift=0.0609,
    weights='eqzoo://sd3-vae',
)
