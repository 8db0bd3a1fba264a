"""Networks of generators inferred from their weights; what weights do not show is asked for, never guessed."""

import pytest
import torch

import eqzoo
from eqzoo.checkpoints.generator import complete_network, infer_network
from eqzoo.generators import DiT, Interpolant, SiT
from eqzoo.registry import argument_defaults, build

LATENTS = dict(latent_channels=3, latent_size=12, num_classes=7)
TRANSFORMERS = {
    'dit': dict(size=(3, 32, 2), patch_size=2, **LATENTS),
    'sit': dict(size=(2, 32, 4), patch_size=4, **LATENTS, learn_sigma=False),
    'norms': dict(size=(2, 32, 4), patch_size=1, **LATENTS, qk_norm=True),
    'lightning': dict(size=(2, 48, 3), patch_size=1, **LATENTS, mlp='swiglu', norm='rms', rope=True, learn_sigma=False),
    'no shifts': dict(size=(2, 32, 2), patch_size=3, **LATENTS, norm='rms', qk_norm=True, adaln_shift=False),
}
ALIGNED = dict(size=(2, 32, 2), patch_size=2, **LATENTS, feature_dims=(5, 6), tap=1, projector_width=8)
CODES = dict(size=(2, 16, 4), num_codes=12, grid=4, num_classes=3, mlp_width=40)
SHAPES = ('size', 'patch_size', *LATENTS, 'learn_sigma', 'qk_norm', 'mlp', 'norm', 'rope', 'adaln_shift')


def state_of(kind, arguments):
    torch.manual_seed(0)
    return build(dict(type=kind, **arguments)).state_dict()


@pytest.mark.parametrize('name', TRANSFORMERS)
def test_transformers_are_inferred_except_for_heads_without_a_trace(name):
    arguments = TRANSFORMERS[name]
    found = infer_network(state_of('DiffusionTransformer', arguments))
    expected = {**argument_defaults('DiffusionTransformer'), **arguments}
    shown = 'qk_norm' in arguments or 'rope' in arguments
    depth, width, heads = arguments['size']
    assert found['size'] == (depth, width, heads if shown else None)
    assert {key: found[key] for key in SHAPES[1:]} == {key: expected[key] for key in SHAPES[1:]}
    assert found['type'] == 'DiffusionTransformer'


def test_projectors_and_codes_are_inferred():
    found = infer_network(state_of('AlignedTransformer', ALIGNED))
    assert (found['type'], found['feature_dims'], found['projector_width']) == ('AlignedTransformer', (5, 6), 8)
    assert 'tap' not in found
    found = infer_network(state_of('MaskTransformer', CODES))
    assert found == dict(type='MaskTransformer', size=(2, 16, None), grid=4, mlp_width=40, codes_and_classes=15)


@pytest.mark.parametrize(
    ('kind', 'arguments', 'given'),
    [
        *(('DiffusionTransformer', each, dict(size=each['size'])) for each in TRANSFORMERS.values()),
        ('DiffusionTransformer', TRANSFORMERS['lightning'], {}),
        ('AlignedTransformer', ALIGNED, dict(size=(2, 32, 2), tap=1)),
        ('MaskTransformer', CODES, dict(size=(2, 16, 4), num_codes=12)),
        ('MaskTransformer', CODES, dict(size=(2, 16, 4), num_classes=3)),
    ],
)
def test_what_is_given_and_what_is_inferred_make_the_network(kind, arguments, given):
    state = state_of(kind, arguments)
    network = build(complete_network(given, state, "'a.pt'"))
    network.load_state_dict(state)
    original = build(dict(type=kind, **arguments))
    original.load_state_dict(state)
    inputs = original.example_inputs()
    with torch.no_grad():
        assert torch.equal(network.eval()(*inputs), original.eval()(*inputs))


@pytest.mark.parametrize(
    ('kind', 'arguments', 'given', 'message'),
    [
        ('DiffusionTransformer', TRANSFORMERS['dit'], {}, r'the attention heads, size=\(3, 32, HEADS\);'),
        ('AlignedTransformer', ALIGNED, dict(size=(2, 32, 2)), 'the block that is aligned, tap=NUMBER'),
        ('AlignedTransformer', ALIGNED, {}, r'size=\(2, 32, HEADS\), nor the block'),
        ('MaskTransformer', CODES, dict(size=(2, 16, 4)), 'num_codes or num_classes, which are 15 together'),
    ],
)
def test_what_weights_do_not_show_is_asked_for(kind, arguments, given, message):
    with pytest.raises(ValueError, match=f"load: 'a.pt' holds a network of .*{message}"):
        complete_network(given, state_of(kind, arguments), "'a.pt'")


def test_a_published_size_is_named_with_its_heads_and_not_assumed():
    with torch.device('meta'):
        state = build(dict(type='DiffusionTransformer', size='S', patch_size=8)).state_dict()
    with pytest.raises(ValueError, match=r"size=\(12, 384, HEADS\); 'S' has 6;"):
        complete_network(None, state, "'a.pt'")
    assert complete_network(dict(size='S'), state, "'a.pt'")['size'] == 'S'


def test_a_users_own_network_is_left_alone():
    state = state_of('DiffusionTransformer', TRANSFORMERS['dit'])
    assert complete_network(dict(type='mine.Network', width=3), state, 'x') == dict(type='mine.Network', width=3)


@pytest.mark.parametrize(
    'state',
    [
        {'blocks.4.w': torch.zeros(1)},
        {'blocks.999999.attn.qkv.weight': torch.zeros(1), 'blocks.0.attn.qkv.weight': torch.zeros(1)},
        {'blocks.0.w': torch.zeros(1), 'x_embedder.proj.weight': torch.zeros(8, 3, 2, 2)},
    ],
)
def test_other_weights_are_refused(state):
    with pytest.raises(ValueError, match='weights: (blocks up to|the network cannot be inferred)'):
        infer_network(state)


class TestLoad:
    def test_the_message_for_a_bare_file_says_what_to_give(self, tmp_path):
        path = tmp_path / 'sit.pt'
        torch.save(dict(ema=state_of('DiffusionTransformer', TRANSFORMERS['sit'])), path)
        with pytest.raises(ValueError, match='do not show its process and, in network=dict') as caught:
            eqzoo.load(path)
        message = str(caught.value)
        assert 'size (2 blocks of 32), patch 4, latents 3 x 12 x 12, 3 output channels, 7 classes' in message
        example = message[message.index('dict(type=') : message.index(', where the rest')]
        config = eval(example, dict(HEADS=4))  # the message is a config, but for the heads
        generator = eqzoo.load(path, config=config)
        assert isinstance(generator, SiT)
        assert generator.process.network_time == 'noise_to_data'
        assert (generator.network.latent_shape, generator.num_classes) == ((3, 12, 12), 7)
        assert generator.network.blocks[0].attn.heads == 4

    def test_the_process_alone_is_enough_where_weights_show_the_heads(self, tmp_path):
        path = tmp_path / 'lightning.pt'
        state = state_of('DiffusionTransformer', TRANSFORMERS['lightning'])
        torch.save(dict(model=state, ema=state, opt={}), path)
        generator = eqzoo.load(path, config=dict(type=SiT, process=dict(type=Interpolant)))
        assert generator.network.blocks[0].attn.heads == 3
        assert all(torch.equal(value, state[name]) for name, value in generator.network.state_dict().items())
        diffusion = eqzoo.load(path, config=dict(type='DiT', process=dict(type='GaussianDiffusion')))
        assert isinstance(diffusion, DiT)

    def test_arguments_that_contradict_the_file_are_refused(self, tmp_path):
        path = tmp_path / 'dit.pt'
        torch.save(state_of('DiffusionTransformer', TRANSFORMERS['dit']), path)
        process = dict(type='GaussianDiffusion')
        for wrong in (dict(size='S'), dict(size=(3, 32, 2), num_classes=9), dict(size=(3, 32, 2), rope=True)):
            with pytest.raises(ValueError, match='is of a network of'):
                eqzoo.load(path, config=dict(type='DiT', process=process, network=wrong))

    @pytest.mark.parametrize(
        ('kind', 'arguments', 'given'),
        [('AlignedTransformer', ALIGNED, dict(HEADS=2, BLOCK=1)), ('MaskTransformer', CODES, dict(HEADS=4, NUMBER=12))],
    )
    def test_messages_for_repa_and_maskgit_are_configs(self, tmp_path, kind, arguments, given):
        path = tmp_path / 'file.pt'
        state = state_of(kind, arguments)
        torch.save(state, path)
        with pytest.raises(ValueError, match='do not show its process') as caught:
            eqzoo.load(path)
        message = str(caught.value)
        config = eval(message[message.index('dict(type=') : message.index(', where the rest')], given)
        network = eqzoo.load(path, config=config).network
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
