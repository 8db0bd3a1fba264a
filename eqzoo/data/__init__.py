"""Images for training and evaluation, and loaders that resume exactly."""

from eqzoo.data.buckets import BucketedImageFolder, BucketedShapes
from eqzoo.data.clothes import Clothes
from eqzoo.data.folder import ImageFolder
from eqzoo.data.loaders import BucketSampler, RunSampler, ShardSampler, build_eval_loader, build_train_loader, collate
from eqzoo.data.samples import NpzImages, write_npz_images
from eqzoo.data.shapes import Shapes

__all__ = [
    'BucketSampler',
    'BucketedImageFolder',
    'BucketedShapes',
    'Clothes',
    'ImageFolder',
    'NpzImages',
    'RunSampler',
    'Shapes',
    'ShardSampler',
    'build_eval_loader',
    'build_train_loader',
    'collate',
    'write_npz_images',
]
