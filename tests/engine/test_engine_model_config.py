"""Checkpoints hold their model's config as plain data."""

from types import SimpleNamespace

import torch
from mmengine.config import Config

from eqzoo.autoencoders import KLAutoencoder
from eqzoo.engine import ModelConfigHook, read_checkpoint
from eqzoo.loading import load_autoencoder
from eqzoo.registry import build

AUTOENCODER = dict(type=KLAutoencoder, block_out_channels=(8, 8), norm_num_groups=4, scale=0.5, weights='a.pth')
TRAINING = dict(
    type='AutoencoderTraining',
    objective=dict(type='Plain'),
    reconstruction_loss=dict(type='ReconstructionLoss', pixel=dict(type='L1')),
)


def test_the_config_is_plain_complete_and_opens_the_file(tmp_path):
    model = KLAutoencoder(block_out_channels=(8, 8), norm_num_groups=4, padding_mode='reflect', scale=0.5)
    training = build(dict(TRAINING, autoencoder={**AUTOENCODER, 'padding_mode': 'reflect', 'weights': None}))
    config = Config(dict(model=dict(autoencoder={**AUTOENCODER, 'padding_mode': 'reflect'})))
    runner = SimpleNamespace(cfg=config, model=training, hooks=[])
    checkpoint = dict(state_dict={f'autoencoder.{key}': value for key, value in model.state_dict().items()})
    ModelConfigHook().before_save_checkpoint(runner, checkpoint)
    torch.save(checkpoint, tmp_path / 'iter_1.pth')
    assert read_checkpoint(tmp_path / 'iter_1.pth')['autoencoder'] == dict(
        type='KLAutoencoder',
        latent_channels=4,
        block_out_channels=[8, 8],
        layers_per_block=2,
        attention_levels=[],
        norm_num_groups=4,
        quant_conv=True,
        feature_channels=None,
        padding_mode='reflect',
    )
    images = torch.rand(1, 3, 8, 8)
    assert torch.equal(load_autoencoder(tmp_path / 'iter_1.pth').latents(images), model.latents(images))
