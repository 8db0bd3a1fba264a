"""CIFAR-10's training images at 32 pixels, a folder a class, from a zip: what studies of the large size are on.

The last tenth is never trained on: half of it tests autoencoders, all of it is the generators' reference.
"""

root = 'data/cifar10_train.zip'
training_images = dict(type='ImageFolder', root=root, size=32, part=(0.0, 0.9))
held_out = dict(type='ImageFolder', root=root, size=32, part=(0.9, 1.0))
train_dataloader = dict(batch_size=16, num_workers=0, dataset=training_images)
test_dataloader = dict(
    batch_size=100, num_workers=0, dataset=dict(type='ImageFolder', root=root, size=32, part=(0.95, 1.0))
)
images_to_watch = dict(type='ImageFolder', root=root, size=32, part=(0.95, 1.0), limit=500)
cache_dataloader = dict(batch_size=100, num_workers=0, dataset=training_images)
latents = dict(
    batch_size=64, num_workers=0, dataset=dict(type='LatentStore', root='work_dirs/latents/studies_cifar10', flip=True)
)
