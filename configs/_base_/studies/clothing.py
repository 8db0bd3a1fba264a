"""Photographs of clothes at 64 pixels: 5,398 of 20 kinds, CC0 (docs/studies.md says where to get them).

A fifth is never trained on: it tests autoencoders, and is the generators' reference.
"""

images = dict(type='ImageFolder', root='data/clothing_144.zip', below='clothing', size=64)
training_images = dict(**images, part=(0.0, 0.8))
held_out = dict(**images, part=(0.8, 1.0))
train_dataloader = dict(batch_size=4, num_workers=0, dataset=training_images)
test_dataloader = dict(batch_size=100, num_workers=0, dataset=held_out)
cache_dataloader = dict(batch_size=100, num_workers=0, dataset=training_images)
# not mirrored: a mirrored latent is not the latent of the mirrored image
latents = dict(
    batch_size=32, num_workers=0, dataset=dict(type='LatentStore', root='work_dirs/latents/studies_clothing')
)
