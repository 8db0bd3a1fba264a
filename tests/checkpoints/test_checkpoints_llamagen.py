"""LlamaGen's tokenizers: their names of weights are read strictly, and give the outputs of the network written out."""

import itertools

import pytest
import torch
from torch.nn import functional as F

import eqzoo
from eqzoo.autoencoders import NormalizedCodebook, VQAutoencoder
from eqzoo.checkpoints.config import infer_config
from eqzoo.checkpoints.keys import to_diffusers
from eqzoo.commands.convert import convert
from eqzoo.config import load_config
from eqzoo.loading import autoencoder_config
from eqzoo.registry import build

WIDTHS, FEATURES, CHANNELS, CODES = (32, 32, 64), 32, 8, 40


def shapes():
    """The names and shapes of a small tokenizer, as LlamaGen's code names them: attention in the coarsest level."""
    found = {}

    def layer(name, *shape):
        found[f'{name}.weight'], found[f'{name}.bias'] = shape, shape[:1]

    def residual(name, before, after):
        layer(f'{name}.norm1', before)
        layer(f'{name}.conv1', after, before, 3, 3)
        layer(f'{name}.norm2', after)
        layer(f'{name}.conv2', after, after, 3, 3)
        if before != after:
            layer(f'{name}.nin_shortcut', after, before, 1, 1)

    def attention(name, width):
        layer(f'{name}.norm', width)
        for part in ('q', 'k', 'v', 'proj_out'):
            layer(f'{name}.{part}', width, width, 1, 1)

    def middle(name, width):
        residual(f'{name}.mid.0', width, width)
        attention(f'{name}.mid.1', width)
        residual(f'{name}.mid.2', width, width)

    layer('encoder.conv_in', WIDTHS[0], 3, 3, 3)
    for level, (before, after) in enumerate(itertools.pairwise((WIDTHS[0], *WIDTHS))):
        for block in range(2):
            residual(f'encoder.conv_blocks.{level}.res.{block}', before if block == 0 else after, after)
            if level == len(WIDTHS) - 1:
                attention(f'encoder.conv_blocks.{level}.attn.{block}', after)
        if level < len(WIDTHS) - 1:
            layer(f'encoder.conv_blocks.{level}.downsample.conv', after, after, 3, 3)
    middle('encoder', WIDTHS[-1])
    layer('encoder.norm_out', WIDTHS[-1])
    layer('encoder.conv_out', FEATURES, WIDTHS[-1], 3, 3)
    layer('decoder.conv_in', WIDTHS[-1], FEATURES, 3, 3)
    middle('decoder', WIDTHS[-1])
    for place, (before, after) in enumerate(itertools.pairwise((WIDTHS[-1], *reversed(WIDTHS)))):
        for block in range(3):
            residual(f'decoder.conv_blocks.{place}.res.{block}', before if block == 0 else after, after)
            if place == 0:
                attention(f'decoder.conv_blocks.{place}.attn.{block}', after)
        if place < len(WIDTHS) - 1:
            layer(f'decoder.conv_blocks.{place}.upsample.conv', after, after, 3, 3)
    layer('decoder.norm_out', WIDTHS[0])
    layer('decoder.conv_out', 3, WIDTHS[0], 3, 3)
    layer('quant_conv', CHANNELS, FEATURES, 1, 1)
    layer('post_quant_conv', FEATURES, CHANNELS, 1, 1)
    return {**found, 'quantize.embedding.weight': (CODES, CHANNELS), 'quantize.codebook_used': (65536,)}


@pytest.fixture(scope='module')
def state():
    generator = torch.Generator().manual_seed(0)
    drawn = {}
    for name, shape in shapes().items():
        drawn[name] = torch.randn(shape, generator=generator) * (0.5 if len(shape) == 1 else 2 / shape[-1] ** 2 / 8)
        if 'norm' in name and name.endswith('weight'):
            drawn[name] += 1
    drawn['quantize.embedding.weight'] *= 10
    return drawn


@pytest.fixture
def file(state, tmp_path):
    torch.save({'model': state}, tmp_path / 'vq.pt')
    return tmp_path / 'vq.pt'


class Network:
    """LlamaGen's network as functions of its state dict."""

    def __init__(self, state):
        self.state = {name: value.double() for name, value in state.items()}

    def has(self, name):
        return f'{name}.weight' in self.state

    def conv(self, name, x, **options):
        return F.conv2d(x, self.state[f'{name}.weight'], self.state[f'{name}.bias'], **options)

    def norm(self, name, x):
        return F.group_norm(x, 32, self.state[f'{name}.weight'], self.state[f'{name}.bias'], eps=1e-6)

    def residual(self, name, x):
        y = self.conv(f'{name}.conv1', F.silu(self.norm(f'{name}.norm1', x)), padding=1)
        y = self.conv(f'{name}.conv2', F.silu(self.norm(f'{name}.norm2', y)), padding=1)
        return y + (self.conv(f'{name}.nin_shortcut', x) if self.has(f'{name}.nin_shortcut') else x)

    def attention(self, name, x):
        q, k, v = (self.conv(f'{name}.{part}', self.norm(f'{name}.norm', x)).flatten(2) for part in 'qkv')
        weights = (q.transpose(1, 2) @ k / q.shape[1] ** 0.5).softmax(dim=2)
        return x + self.conv(f'{name}.proj_out', (v @ weights.transpose(1, 2)).view_as(x))

    def levels(self, half, blocks, x):
        for level in range(len(WIDTHS)):
            name = f'{half}.conv_blocks.{level}'
            for block in range(blocks):
                x = self.residual(f'{name}.res.{block}', x)
                if self.has(f'{name}.attn.{block}.q'):
                    x = self.attention(f'{name}.attn.{block}', x)
            if self.has(f'{name}.downsample.conv'):
                x = self.conv(f'{name}.downsample.conv', F.pad(x, (0, 1, 0, 1)), stride=2)
            if self.has(f'{name}.upsample.conv'):
                x = self.conv(f'{name}.upsample.conv', x.repeat_interleave(2, 2).repeat_interleave(2, 3), padding=1)
        return x

    def middle(self, half, x):
        x = self.attention(f'{half}.mid.1', self.residual(f'{half}.mid.0', x))
        return self.residual(f'{half}.mid.2', x)

    def last(self, half, x):
        return self.conv(f'{half}.conv_out', F.silu(self.norm(f'{half}.norm_out', x)), padding=1)

    def encode(self, x):
        x = self.levels('encoder', 2, self.conv('encoder.conv_in', x, padding=1))
        return self.conv('quant_conv', self.last('encoder', self.middle('encoder', x)))

    def decode(self, indices):
        table = F.normalize(self.state['quantize.embedding.weight'], dim=1)
        x = self.conv('post_quant_conv', table[indices].movedim(-1, 1))
        x = self.middle('decoder', self.conv('decoder.conv_in', x, padding=1))
        return self.last('decoder', self.levels('decoder', 3, x))

    def indices(self, features):
        table = F.normalize(self.state['quantize.embedding.weight'], dim=1)
        cosines = torch.einsum('bchw,kc->bhwk', F.normalize(features, dim=1), table)
        return cosines.argmax(dim=-1)


def test_outputs_are_those_of_the_network_written_out(state, file):
    ours, theirs = eqzoo.load(file).double(), Network(state)
    images = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1)).double() * 2 - 1
    with torch.no_grad():
        z = ours.encode(images).mean
        torch.testing.assert_close(z, theirs.encode(images), atol=1e-12, rtol=1e-10)
        indices = ours.tokens(images)
        assert torch.equal(indices, theirs.indices(z))
        assert len(indices.unique()) > 5
        torch.testing.assert_close(ours.decode_tokens(indices), theirs.decode(indices), atol=1e-12, rtol=1e-10)
        torch.testing.assert_close(ours.decode(z), theirs.decode(indices), atol=1e-12, rtol=1e-10)


def test_the_architecture_is_inferred(state):
    config = infer_config(to_diffusers(state))
    assert config['quantizer'] == dict(type='NormalizedCodebook', num_codes=CODES, channels=CHANNELS)
    expected = dict(
        type='VQAutoencoder',
        latent_channels=CHANNELS,
        num_codes=CODES,
        feature_channels=FEATURES,
        block_out_channels=list(WIDTHS),
        layers_per_block=2,
        attention_levels=[2],
        norm_num_groups=32,
    )
    assert {key: config[key] for key in expected} == expected


def test_every_weight_is_read(state, file):
    """All names but the buffer of recent codes, which only LlamaGen's log needs."""
    loaded = eqzoo.load(file).state_dict()
    numbers = sum(value.numel() for name, value in loaded.items() if not name.startswith('normalization.'))
    assert numbers == sum(value.numel() for value in state.values()) - 65536
    for change, message in [
        (
            {'encoder.conv_blocks.3.res.0.norm1.weight': torch.zeros(32)},
            'cannot be inferred without .encoder.down_blocks.3.resnets.0.conv1.weight',
        ),
        ({'decoder.conv_blocks.1.res.2.conv2.more': torch.zeros(1)}, '1 unexpected: decoder.up_blocks.1.resnets.2'),
        ({'decoder.mid.1.q.weight': torch.zeros(8, 8, 1, 1)}, 'of another shape: decoder.mid_block.attentions.0.to_q'),
    ]:
        torch.save({'model': {**state, **change}}, file)
        with pytest.raises(ValueError, match=message):
            eqzoo.load(file)


def test_a_codebook_that_is_not_normalised_is_refused(file):
    """The table of one quantizer is other codes in the other, so neither takes the other's file."""
    arguments = {**infer_config(to_diffusers(torch.load(file)['model'])), 'quantizer': None}
    arguments.pop('type')
    with pytest.raises(
        ValueError, match='missing: quantize.embedding.weight; 1 unexpected: quantize.directions.weight'
    ):
        VQAutoencoder(**arguments, weights=file)


@pytest.mark.parametrize(('to', 'name'), [('eqzoo', 'a.safetensors'), ('eqzoo', 'a.pth'), ('ldm', 'a.ckpt')])
def test_converted_files_are_the_same_autoencoder(file, to, name, tmp_path):
    convert(str(file), str(tmp_path / name), to=to)
    ours, again = eqzoo.load(file), eqzoo.load(tmp_path / name)
    assert isinstance(again.quantize, NormalizedCodebook)
    assert ours.state_dict().keys() == again.state_dict().keys()
    assert all(map(torch.equal, ours.state_dict().values(), again.state_dict().values()))


def test_diffusers_has_no_such_quantizer(file, tmp_path):
    with pytest.raises(ValueError, match='the quantizer NormalizedCodebook is unknown to diffusers'):
        convert(str(file), str(tmp_path / 'folder'), to='diffusers')


@pytest.mark.parametrize('name', ['_base_/autoencoders/llamagen_vq16', 'zoo/autoencoders/llamagen_vq8'])
def test_configs_are_of_the_published_networks(root, name):
    """Widths of 128 and (1, 1, 2, 2, 4) or (1, 2, 2, 4) times that, z of 256, and 16,384 codes of 8."""
    with torch.device('meta'):
        autoencoder = build({**autoencoder_config(root / 'configs' / f'{name}.py'), 'weights': None})
    assert autoencoder.codebook.shape == (16384, 8)
    assert autoencoder.quant_conv.weight.shape == (8, 256, 1, 1)
    levels = (128, 128, 256, 256, 512) if '16' in name else (128, 256, 256, 512)
    assert [block.resnets[1].conv2.weight.shape[0] for block in autoencoder.encoder.down_blocks] == list(levels)
    assert autoencoder.grid(256, 256) == ((16, 16) if '16' in name else (32, 32))
    assert load_config(root / 'configs/halton/halton_base_256.py').model.autoencoder.num_codes == 16384
