"""Latents of SD-VAE-16 fine-tuned by `configs/eqvae/sd16_rot_scale.py`: its weights have not been published.

Their scale is measured before: python tools/latent_stats.py configs/eqvae/sd16_rot_scale.py CHECKPOINT.
"""

weights = 'work_dirs/eqvae/sd16_rot_scale/iter_50000.pth'
store = 'data/latents/imagenet_256_sd16_eq'
