"""Latents of ImageNet at 256 pixels, cropped as ADM does, mirrored with probability 0.5. A leaf names the store.

    python tools/cache_latents.py CONFIG --flip

Differs from EQ-VAE's code: there each image has one latent, drawn once and mirrored or not once and for all.
"""

imagenet = dict(type='ImageFolder', root='data/imagenet/train', size=256, crop='center')

cache_dataloader = dict(batch_size=64, num_workers=8, dataset=imagenet)

train_dataloader = dict(batch_size=256, num_workers=0, dataset=dict(type='LatentStore', flip=True))
