"""Wan 2.1's VAE, KL f8 with 16 channels, on one frame: Qwen-Image's network and statistics; 126,892,531 parameters."""

from mmengine.config import read_base

with read_base():
    from ..._base_.autoencoders.qwen_image_vae import autoencoder

autoencoder.update(class_name='AutoencoderKLWan', weights='eqzoo://wan-vae')
