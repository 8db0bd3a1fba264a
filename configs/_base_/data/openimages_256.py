"""OpenImages at 256 pixels as the released code crops it; tested on ImageNet's validation images."""

# 160 in all: 8 GPUs of 10 images, two accumulated (released config).
train_dataloader = dict(
    batch_size=160,
    num_workers=8,
    dataset=dict(type='ImageFolder', root='data/openimages/train', size=256, crop='random_square'),
)

test_dataloader = dict(
    batch_size=32,
    num_workers=8,
    dataset=dict(type='ImageFolder', root='data/imagenet/val', size=256, crop='center'),
)

val_dataloader = dict(
    batch_size=32,
    num_workers=8,
    dataset=dict(type='ImageFolder', root='data/imagenet/val', size=256, crop='center', limit=1000),
)
