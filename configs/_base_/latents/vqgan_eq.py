"""Codes of VQ-GAN fine-tuned by `configs/eqvae/vqgan_rot_scale.py`: its weights have not been published."""

weights = 'work_dirs/eqvae/vqgan_rot_scale/iter_50000.pth'
store = 'data/latents/imagenet_256_vqgan_eq'
