"""The architecture from names and shapes: the published networks, on the meta device."""

from pathlib import Path

import pytest
import torch

from eqzoo.autoencoders import KLAutoencoder
from eqzoo.checkpoints.config import infer_config, plain_config
from eqzoo.checkpoints.keys import to_diffusers, to_ldm
from eqzoo.loading import autoencoder_config
from eqzoo.registry import build

F16 = dict(block_out_channels=(128, 128, 256, 256, 512), attention_levels=(4,))
CONFIGS = Path(__file__).parents[2] / 'configs'
# Shapes of public autoencoders: latent-diffusion, taming, VA-VAE, taesd.
PUBLIC = {
    'kl-f4': dict(type='KLAutoencoder', latent_channels=3, block_out_channels=(128, 256, 512)),
    'kl-f8': dict(type='KLAutoencoder'),
    'SD3': dict(type='KLAutoencoder', latent_channels=16, quant_conv=False),
    'kl-f16': dict(type='KLAutoencoder', latent_channels=16, **F16),
    'VA-VAE': dict(type='KLAutoencoder', latent_channels=32, **F16),
    'kl-f32': dict(
        type='KLAutoencoder',
        latent_channels=64,
        block_out_channels=(128, 128, 256, 256, 512, 512),
        attention_levels=(4, 5),
    ),
    'LDM of other embed_dim': dict(type='KLAutoencoder', latent_channels=4, feature_channels=16),
    'VQ-GAN 1024': dict(type='VQAutoencoder'),
    'VQ-GAN 16384': dict(type='VQAutoencoder', num_codes=16384),
    'LDM vq-f8': dict(
        type='VQAutoencoder',
        latent_channels=4,
        num_codes=16384,
        block_out_channels=(128, 256, 256, 512),
        attention_levels=(3,),
    ),
    'codes shorter than features': dict(type='VQAutoencoder', latent_channels=8, feature_channels=256),
    'TAESD': dict(type='TinyAutoencoder'),
    'TAESD3': dict(type='TinyAutoencoder', latent_channels=16),
    'TAEF2': dict(type='TinyAutoencoder', latent_channels=32, pooled=True),
    **{path.stem: autoencoder_config(path) for path in sorted(CONFIGS.glob('*/autoencoders/*.py'))},
}
# those of diffusers' own classes have no names of LDM, and some share a network: tests of the wrapper infer them
PUBLIC = {name: config for name, config in PUBLIC.items() if config['type'] != 'DiffusersAutoencoder'}


def meta_state(config):
    with torch.device('meta'):
        state = build({**config, 'weights': None}).state_dict()
    return {key: value for key, value in state.items() if not key.startswith('normalization.')}


@pytest.mark.parametrize('name', PUBLIC)
def test_public_shapes_are_inferred(name):
    config, state = PUBLIC[name], meta_state(PUBLIC[name])
    assert infer_config(state) == plain_config(config)
    back = to_diffusers(to_ldm(state))
    assert list(back) == list(state)
    assert all(back[key].shape == value.shape for key, value in state.items())


def test_norm_groups_leave_no_trace_so_narrow_levels_need_a_config():
    state = KLAutoencoder(block_out_channels=(8, 16), norm_num_groups=4).state_dict()
    with pytest.raises(ValueError, match=r'\[8, 16\] channels; .* multiples of 32, .* give a config'):
        infer_config(state)


@pytest.mark.parametrize('number', ['1000000000', '9' * 5000, '7', '-1', '00'])
@pytest.mark.parametrize(
    'name', ['encoder.down_blocks.{}.resnets.0.conv1.weight', 'encoder.down.{}.block.0.conv1.weight']
)
def test_numbers_of_levels_have_no_gaps(name, number):
    """A name may claim the billionth level; looking for all before it would never end."""
    state = meta_state(PUBLIC['kl-f8'])
    state = to_diffusers(
        {**state, name.format(number): torch.zeros(2), f'decoder.up.{number}.block.0.x': torch.zeros(2)}
    )
    if number == '-1':
        assert infer_config(state) == plain_config(PUBLIC['kl-f8'])  # a name without a meaning, refused on loading
        return
    with pytest.raises(ValueError, match=r'expected 0, 1, 2, … without gaps') as error:
        infer_config(state)
    assert len(str(error.value)) < 400


def test_gumbel_quantisers_are_named():
    with pytest.raises(ValueError, match="the quantiser of taming's GumbelVQ"):
        infer_config({**meta_state(PUBLIC['kl-f8']), 'quantize.embed.weight': torch.zeros(2, 2)})


@pytest.mark.parametrize('state', [{'blocks.0.weight': torch.zeros(2)}, {'encoder.conv_in.weight': torch.zeros(2)}])
def test_other_networks_are_not_guessed(state):
    with pytest.raises(ValueError, match=r"without 'decoder\.conv_in\.weight'; expected a KL, VQ"):
        infer_config(state)


def test_the_name_that_a_tiny_one_lacks_is_reported():
    with torch.device('meta'):
        state = build(dict(type='TinyAutoencoder')).state_dict()
    state['encoder.layers.0.wieght'] = state.pop('encoder.layers.0.weight')
    with pytest.raises(ValueError, match=r"without 'encoder\.layers\.0\.weight'; .* \(both files\)"):
        infer_config(state)


def test_classes_become_names():
    config = plain_config(dict(type=KLAutoencoder, block_out_channels=(8, 8), scale=2.0, weights='a.pth'))
    assert config == dict(
        type='KLAutoencoder',
        latent_channels=4,
        block_out_channels=[8, 8],
        layers_per_block=2,
        attention_levels=[],
        norm_num_groups=32,
        quant_conv=True,
        feature_channels=None,
        padding_mode='zeros',
    )


class Unregistered(KLAutoencoder):
    """A class that only its module knows."""


def test_unregistered_classes_become_dotted_paths():
    assert plain_config(dict(type=Unregistered))['type'] == f'{__name__}.Unregistered'


@pytest.mark.parametrize(
    ('sizes', 'quantizer'),
    [
        ((3, 40), dict(type='EMACodebook', num_codes=40, channels=3)),
        ((3, 240), dict(type='FSQ', levels=[8, 6, 5])),
        ((5, 32), dict(type='LFQ', channels=5)),
    ],
)
def test_quantizers_are_inferred(sizes, quantizer, tmp_path):
    """And other levels than a file's, which no shape shows, are refused."""
    shape = dict(block_out_channels=[32, 32], attention_levels=[], layers_per_block=1)
    config = dict(type='VQAutoencoder', latent_channels=sizes[0], num_codes=sizes[1], quantizer=quantizer, **shape)
    made = build(config)
    assert infer_config(made.state_dict()) == plain_config(config)
    if quantizer['type'] == 'FSQ':
        torch.save(made.state_dict(), tmp_path / 'a.pth')
        other = {**config, 'quantizer': dict(type='FSQ', levels=[6, 8, 5]), 'weights': str(tmp_path / 'a.pth')}
        with pytest.raises(ValueError, match=r'has quantize.levels \[8, 6, 5\]; the config has \[6, 8, 5\]'):
            build(other)
    if quantizer['type'] == 'EMACodebook':  # begun from a file without averages
        state = {
            name: value for name, value in made.state_dict().items() if name.split('.')[1] not in ('counts', 'sums')
        }
        torch.save(state, tmp_path / 'a.pth')
        again = build({**config, 'weights': str(tmp_path / 'a.pth')})
        assert torch.equal(again.quantize.sums, made.codebook)
        assert (again.quantize.counts == 1).all()
