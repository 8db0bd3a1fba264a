"""Latents of VA-VAE, f16 with 32 channels, normalised per channel by its published statistics (MIT).

The published file has no statistics; docs/generators.md shows how they come into data/vavae.safetensors.
"""

autoencoder = dict(
    type='KLAutoencoder',
    latent_channels=32,
    block_out_channels=(128, 128, 256, 256, 512),
    attention_levels=(4,),
    weights='data/vavae.safetensors',
)
latents = dict(latent_channels=32, latent_size=16)
store = 'data/latents/imagenet_256_vavae'
