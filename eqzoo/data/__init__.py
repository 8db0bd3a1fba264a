"""Images for training and evaluation, stored latents, and loaders that resume exactly."""

from eqzoo.data.collate import collate
from eqzoo.data.image_folder import ImageFolder
from eqzoo.data.latent_dataset import LatentDataset
from eqzoo.data.latent_lightningdit import LightningDiTLatents
from eqzoo.data.latent_npy import NpyLatents
from eqzoo.data.latent_store import LatentStore
from eqzoo.data.loaders import build_eval_loader, build_train_loader
from eqzoo.data.npz_images import NpzImages, write_npz_images
from eqzoo.data.samplers import RunSampler, ShardSampler
from eqzoo.data.shapes import Shapes

__all__ = [
    'ImageFolder',
    'LatentDataset',
    'LatentStore',
    'LightningDiTLatents',
    'NpyLatents',
    'NpzImages',
    'RunSampler',
    'Shapes',
    'ShardSampler',
    'build_eval_loader',
    'build_train_loader',
    'collate',
    'write_npz_images',
]
