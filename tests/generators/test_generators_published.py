"""Files of generators: every format is read, and errors describe a file of another network."""

import argparse
import re

import pytest
import torch
from formula_networks import LATENTS, fill
from safetensors.torch import save_file

import eqzoo
from eqzoo.checkpoints.generator import describe_state, load_generator, read_generator
from eqzoo.generators import AlignedTransformer, DiffusionTransformer

SMALL = (3, 32, 2)


def network(size=SMALL, patch_size=2, **arguments):
    return DiffusionTransformer(size, patch_size, **{**LATENTS, **arguments})


def under(prefix, state):
    return {prefix + name: value for name, value in state.items()}


@pytest.fixture
def file(tmp_path):
    def write(content, name='generator.pt'):
        torch.save(content, tmp_path / name)
        return str(tmp_path / name)

    return write


WEIGHTS = fill(network()).state_dict()
OTHER = {name: value + 1 for name, value in WEIGHTS.items()}
NAMESPACE = argparse.Namespace(model='DiT-XL/2', lr=1e-4)
BESIDE = dict(generator=dict(type='SiT'), iteration=7)


@pytest.mark.parametrize(
    'content',
    [
        WEIGHTS,
        dict(model=OTHER, ema=WEIGHTS, opt={'state': {}}, args=NAMESPACE),
        dict(ema=WEIGHTS, model=OTHER, opt={}, args=NAMESPACE, steps=400_000),
        dict(model=WEIGHTS),
        dict(model=OTHER, ema={**WEIGHTS, **under('bn.', OTHER)}, vae={'encoder.conv_in.weight': torch.zeros(1)}),
        dict(state_dict={**under('generator.network.', WEIGHTS), **under('autoencoder.', OTHER)}),
        under('module.', WEIGHTS),
        dict(model=under('module._orig_mod.', WEIGHTS), opt={}),
        dict(state_dict=under('generator.network.', WEIGHTS), ema_state_dict=None, **BESIDE),
        dict(state_dict=under('generator.network.', OTHER), ema_state_dict=under('network.', WEIGHTS), **BESIDE),
        dict(state_dict=under('generator.network._orig_mod.', WEIGHTS)),
        dict(model=OTHER, model_ema=under('module.', WEIGHTS)),
        dict(model=OTHER, ema=dict(decay=torch.tensor(0.9), shadow=WEIGHTS)),
        dict(state_dict=OTHER, state_dict_ema=WEIGHTS),
        {**under('online_model.', OTHER), **under('ema_model.', WEIGHTS), 'step': torch.tensor(1)},
        {name.replace('.', '._fsdp_wrapped_module.'): value for name, value in WEIGHTS.items()},
    ],
    ids=[
        'flat',
        'dit',
        'repa',
        'model',
        'repa-e',
        'joint',
        'ddp',
        'compiled',
        'eqzoo',
        'average',
        'eqzoo-compiled',
        'ema',
        'shadow',
        'timm',
        'lucidrains',
        'fsdp',
    ],
)
def test_every_file_format_is_read_and_the_average_is_preferred(file, content):
    loaded = network(weights=file(content)).state_dict()
    assert loaded.keys() == WEIGHTS.keys()
    for name, value in WEIGHTS.items():
        assert torch.equal(loaded[name], value), name


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_finite_are_refused(file, value):
    bad = {**WEIGHTS, 'blocks.1.attn.qkv.bias': torch.full((96,), value)}
    with pytest.raises(ValueError, match=r'holds NaN or infinite values in blocks\.1\.attn\.qkv\.bias'):
        network(weights=file(bad))
    with pytest.raises(ValueError, match='holds NaN or infinite'):
        read_generator(file(dict(model=WEIGHTS, ema=bad)))
    with pytest.raises(ValueError, match='holds NaN or infinite'):
        eqzoo.load(file(dict(state_dict=bad)))


def test_half_an_average_is_refused(file):
    average = {name: value for name, value in WEIGHTS.items() if name != 'blocks.1.attn.qkv.bias'}
    with pytest.raises(ValueError, match=r'lacks 1 of .* weights of .*blocks.*: blocks\.1\.attn\.qkv\.bias'):
        read_generator(file(dict(model=OTHER, ema=average)))


def test_safetensors_are_read(tmp_path):
    save_file(WEIGHTS, tmp_path / 'generator.safetensors')
    loaded = network(weights=str(tmp_path / 'generator.safetensors')).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in WEIGHTS.items())


def test_a_files_card_of_latents_is_returned(file):
    card = dict(sha256='ab', scale=0.18215)
    assert read_generator(file(dict(state_dict=WEIGHTS, latents=card))).latents == card
    assert read_generator(file(WEIGHTS)).latents is None
    assert load_generator(network(), file(dict(ema=WEIGHTS, latents=card))).latents == card


def test_blocks_of_repas_older_files_are_numbered_on(file):
    given = dict(feature_dims=(6,), tap=1, projector_width=8)
    now = fill(AlignedTransformer(SMALL, 2, **LATENTS, **given)).state_dict()
    then = {
        re.sub(r'^blocks\.([12])\.', lambda found: f'decoder_blocks.{int(found[1]) - 1}.', name): value
        for name, value in now.items()
    }
    assert 'decoder_blocks.1.attn.qkv.weight' in then
    assert 'blocks.2.attn.qkv.weight' not in then
    loaded = AlignedTransformer(SMALL, 2, **LATENTS, **given, weights=file(then)).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in now.items())


@pytest.mark.parametrize(
    ('arguments', 'theirs', 'ours'),
    [
        (dict(size=(2, 32, 2)), '(3 blocks of 32), patch 2', '(2 blocks of 32), patch 2'),
        (dict(size=(3, 64, 2)), '(3 blocks of 32)', '(3 blocks of 64)'),
        (dict(patch_size=4), 'patch 2', 'patch 4'),
        (dict(latent_channels=3), 'latents 4 x 8 x 8', 'latents 3 x 8 x 8'),
        (dict(latent_size=16), 'latents 4 x 8 x 8', 'latents 4 x 16 x 16'),
        (dict(learn_sigma=False), '8 output channels', '4 output channels'),
        (dict(num_classes=1000), '10 classes', '1,000 classes'),
    ],
)
def test_the_error_describes_both_networks(file, arguments, theirs, ours):
    path = file(WEIGHTS)
    with pytest.raises(ValueError, match='is of a network of') as caught:
        network(**arguments, weights=path)
    found, described = str(caught.value).split('; the config describes ')
    assert found.startswith(f'DiffusionTransformer.weights: {path!r}')
    assert theirs in found
    assert ours in described
    assert 'learn_sigma' in described


def test_published_sizes_are_described_by_name(file):
    with torch.device('meta'):
        state = DiffusionTransformer('XL', 2).state_dict()
    assert describe_state(state) == 'size XL, patch 2, latents 4 x 32 x 32, 8 output channels, 1,000 classes'
    assert describe_state({'blocks.4.w': torch.zeros(1)}) == '5 blocks and other names than those of DiT and MaskGIT'


def test_the_error_names_missing_and_unexpected_projectors(file):
    aligned = AlignedTransformer(SMALL, 2, **LATENTS, learn_sigma=True, feature_dims=(6,), tap=1, projector_width=8)
    with pytest.raises(ValueError, match='6 unexpected: projectors.0.0.weight'):
        network(weights=file(aligned.state_dict()))
    with pytest.raises(ValueError, match='6 missing: projectors.0.0.weight'):
        load_generator(aligned, file(WEIGHTS))


@pytest.mark.parametrize('content', [{'encoder.conv_in.weight': torch.zeros(2, 3, 3, 3)}, {'ema': {}}, {}])
def test_an_autoencoders_file_is_refused(file, content):
    with pytest.raises(ValueError, match='holds no generator; .*an autoencoder goes to model.autoencoder.weights'):
        network(weights=file(content))


def test_objects_beside_the_weights_are_read_past(file):
    assert set(read_generator(file(dict(ema=WEIGHTS, args=print))).state) == set(WEIGHTS)


def test_the_error_names_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere'):
        read_generator(tmp_path / 'nowhere.pt')
