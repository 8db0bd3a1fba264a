"""SD-VAE-16, the KL f16 autoencoder with 16 channels of CompVis/latent-diffusion (kl-f16); 69,610,963 parameters."""

# No scale is published for these latents (0.2325 belongs to MAR's own KL-16): they stay raw until they are measured.
autoencoder = dict(
    type='KLAutoencoder',
    latent_channels=16,
    block_out_channels=(128, 128, 256, 256, 512),
    attention_levels=(4,),
    weights='eqzoo://sd-vae-16',
)
