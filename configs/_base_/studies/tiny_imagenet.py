"""Forty classes of Tiny ImageNet at 64 pixels: 20,000 images to train on, 2,000 held out (docs/studies.md)."""

images = dict(type='ImageFolder', root='data/tiny_imagenet_40.zip', size=64, crop='exact')
training_images = dict(**images, below='train')
held_out = dict(**images, below='val')
train_dataloader = dict(batch_size=4, num_workers=0, dataset=training_images)
test_dataloader = dict(batch_size=100, num_workers=0, dataset=held_out)
cache_dataloader = dict(batch_size=100, num_workers=0, dataset=training_images)
# not mirrored: a mirrored latent is not the latent of the mirrored image
latents = dict(
    batch_size=32, num_workers=0, dataset=dict(type='LatentStore', root='work_dirs/latents/studies_tiny_imagenet')
)
