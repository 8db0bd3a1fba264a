"""Latents of SDXL-VAE fine-tuned by `configs/eqvae/sdxl_rot_scale.py`: its weights have not been published.

Their scale is measured before: python tools/latent_stats.py configs/eqvae/sdxl_rot_scale.py CHECKPOINT.
"""

weights = 'work_dirs/eqvae/sdxl_rot_scale/iter_50000.pth'
store = 'data/latents/imagenet_256_sdxl_eq'
