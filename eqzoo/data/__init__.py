"""Images for training and evaluation: folders and archives, the built-in Shapes, loaders that resume exactly."""

from eqzoo.data.collate import collate
from eqzoo.data.image_folder import ImageFolder
from eqzoo.data.loaders import build_eval_loader, build_train_loader
from eqzoo.data.npz_images import NpzImages, write_npz_images
from eqzoo.data.samplers import RunSampler, ShardSampler
from eqzoo.data.shapes import Shapes

__all__ = [
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
