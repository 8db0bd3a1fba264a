"""REPA-E's recipe: an autoencoder and SiT-XL, aligned with DINOv2-B, trained together on ImageNet (arXiv 2504.10483).

A leaf adds `model.autoencoder`, and the sizes of its latents. Rates, factors and losses are those of the release.

Differs from the release: bfloat16 without gradient scaling in place of float16; the discriminator starts untrained
unless model.adversarial_loss.discriminator.weights names a file.
"""

from mmengine.config import read_base

with read_base():
    from .data.imagenet_256_latents import imagenet
    from .data.openimages_256 import val_dataloader
    from .evaluation.generation import *
    from .losses.ldm import adversarial_loss, penalties, reconstruction_loss
    from .runtime import *
    from .schedules.generator import checkpoint
    from .schedules.generator_400k import *

train_dataloader = dict(batch_size=256, num_workers=8, dataset=imagenet)
default_hooks.checkpoint = checkpoint
train_cfg.val_interval = 50_000
reconstruction_loss.update(reduction='mean')
adversarial_loss.update(weight=0.1, adaptive=False)
network = dict(type='AlignedTransformer', size='XL', patch_size=2, num_classes=1000, feature_dims=(768,), tap=8)
model = dict(
    type='JointTraining',
    generator=dict(
        type='REPA',
        network=network,
        process=dict(type='Interpolant'),
        encoder=dict(type='DINOv2Tokens', size='b'),
        weight=0.5,
    ),
    objective=dict(type='Plain'),
    reconstruction_loss=reconstruction_loss,
    penalties=penalties,
    adversarial_loss=adversarial_loss,
    alignment_weight=1.5,
    momentum=0.1,
    precision='bf16',
)
adamw = dict(
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0, fused=True),
    clip_grad=dict(max_norm=1.0),
)
optim_wrapper = dict(autoencoder=adamw, discriminator=adamw, generator=adamw)
custom_hooks.pictures = dict(type='PictureHook', interval=10_000)
custom_hooks.samples.sampler = dict(
    type='ODE', method='heun', steps=25, guidance=dict(type='ClassifierFree', scale=4.0)
)
sampling.sampler = dict(type='SDE', steps=250, guidance=None)
