"""VA-VAE, the KL f16 autoencoder with 32 channels of hustvl/LightningDiT; 69,836,067 parameters."""

# Its per-channel statistics are a file of their own, latents_stats.pt: latents stay raw until they are measured.
autoencoder = dict(
    type='KLAutoencoder',
    latent_channels=32,
    block_out_channels=(128, 128, 256, 256, 512),
    attention_levels=(4,),
    weights='eqzoo://va-vae',
)
