"""Latents of VA-VAE, f16 with 32 channels, normalised per channel by its published statistics (MIT).

The autoencoder's file has no statistics; they are a file of their own. Put them together once:

    python tools/convert.py hf://hustvl/vavae-imagenet256-f16d32-dinov2/vavae-imagenet256-f16d32-dinov2.pt \\
        data/vavae.safetensors --to ldm

and write latents_stats.pt of the same repository into it, as docs/generators.md shows.
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
