"""Weights inside a file: every key, prefix and average is found; unusable content is refused. The digest of an autoencoder."""

import argparse
import copy
from pathlib import PurePosixPath

import pytest
import torch
from safetensors.torch import save_file
from taming.modules.diffusionmodules import model as taming
from taming.modules.vqvae.quantize import VectorQuantizer2

from eqzoo.autoencoders import KLAutoencoder, TinyAutoencoder
from eqzoo.checkpoints.autoencoder import autoencoder_digest, complete_config, read_autoencoder
from eqzoo.checkpoints.config import plain_config
from eqzoo.checkpoints.keys import to_diffusers, to_ldm
from eqzoo.checkpoints.read import read_file, split_parts
from eqzoo.checkpoints.write import export
from eqzoo.loading import load_autoencoder
from eqzoo.registry import AUTOENCODERS

SHAPE = dict(block_out_channels=(8, 8, 16), layers_per_block=1, attention_levels=(1, 2), norm_num_groups=4)


def states():
    """Two states of one network under LDM's names: trained, and its average."""
    torch.manual_seed(0)
    model = KLAutoencoder(4, **SHAPE)
    trained = {k: torch.randn_like(v) for k, v in model.state_dict().items() if not k.startswith('normalization.')}
    return to_ldm(trained), to_ldm({key: torch.randn_like(value) for key, value in trained.items()})


TRAINED, AVERAGE = states()
OTHER = {'blocks.0.weight': torch.zeros(2)}
STEP = torch.tensor(7)
DISCRIMINATOR = {'main.0.weight': torch.ones(4, 3, 4, 4), 'main.3.num_batches_tracked': torch.tensor(7)}


def under(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def lit_ema(average):
    """LDM's LitEma: names without dots, and two buffers of its own."""
    return {
        **{f'model_ema.{key.replace(".", "")}': value for key, value in average.items()},
        'model_ema.decay': torch.tensor(0.9999),
        'model_ema.num_updates': torch.tensor(7, dtype=torch.int32),
    }


LAYOUTS = {
    'bare': TRAINED,
    'state_dict': dict(state_dict=TRAINED, epoch=3),
    "MAR's and LlamaGen's model": dict(model=TRAINED),
    'an average alone': dict(ema=TRAINED),
    "REPA-E's, beside its generator": dict(model=OTHER, ema=OTHER, vae=TRAINED, discriminator=OTHER),
    "DiT's command line": dict(model=TRAINED, opt=dict(step=1), args=argparse.Namespace(lr=1e-4, name='x')),
    'DistributedDataParallel': dict(state_dict=under('module.', TRAINED)),
    'compiled': under('_orig_mod.', TRAINED),
    'compiled in DistributedDataParallel': dict(model=under('module._orig_mod.', TRAINED)),
    'AveragedModel': {**under('module.', TRAINED), 'n_averaged': torch.tensor(3)},
    'Stable Diffusion': {**under('first_stage_model.', TRAINED), **under('model.', OTHER)},
    'compiled in a larger one': under('vae._orig_mod.', TRAINED),
    'merged': dict(state_dict={**under('vae.', TRAINED), **under('unet.', OTHER)}),
    "eqzoo's": dict(state_dict=under('autoencoder.', TRAINED)),
    "VA-VAE's vision encoder": dict(state_dict={**TRAINED, **under('foundation_model.', OTHER)}),
    "Stable Diffusion's average of its denoiser": dict(
        state_dict={**under('first_stage_model.', TRAINED), **lit_ema(under('diffusion_model.', OTHER))}
    ),
    # the trained ones must not be taken
    "eqzoo's average": dict(state_dict=under('autoencoder.', AVERAGE), ema_state_dict=TRAINED),
    "DiT's average": dict(model=AVERAGE, ema=TRAINED, args=argparse.Namespace()),
    "LDM's average": dict(state_dict={**AVERAGE, **lit_ema(TRAINED)}),
    "LDM's average in a larger file": under('first_stage_model.', {**AVERAGE, **lit_ema(TRAINED)}),
}
AVERAGED = list(LAYOUTS)[-4:]


def assert_equal(left, right):
    assert set(left) == set(right)
    for key, value in left.items():
        assert torch.equal(value, right[key]), key


@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_layout_is_read(tmp_path, layout):
    torch.save(LAYOUTS[layout], tmp_path / 'a.ckpt')
    stored = read_autoencoder(tmp_path / 'a.ckpt')
    assert_equal(stored.state, to_diffusers(TRAINED))
    assert stored.config is None
    if layout in AVERAGED:
        assert_equal(stored.trained, to_diffusers(AVERAGE))
    else:
        assert stored.trained is None


@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors'])
def test_statistics_beside_an_averaged_autoencoder_survive_a_conversion(tmp_path, name):
    norm = {'bn.running_mean': torch.tensor([0.0, 1.0, -2.0, 3.0]), 'bn.running_var': torch.full((4,), 4.0)}
    torch.save(dict(vae=TRAINED, vae_ema=AVERAGE, ema=norm, model=norm), tmp_path / 'in.pt')
    stored = complete_config(read_autoencoder(tmp_path / 'in.pt'), 'in', dict(type='KLAutoencoder', **SHAPE))
    export(stored, tmp_path / name, to='eqzoo')
    for file in (stored, read_autoencoder(tmp_path / name)):
        for state, weights in ((file.state, AVERAGE), (file.trained, TRAINED)):
            expected = {'normalization.shift': norm['bn.running_mean'], 'normalization.scale': torch.full((4,), 0.5)}
            assert_equal(state, {**to_diffusers(weights), **expected})


def test_the_batch_norm_of_repa_e_s_averaged_generator_is_the_normalisation(tmp_path):
    norms = {
        name: {f'bn.running_{key}': value for key, value in dict(mean=mean, var=var, count=STEP).items()}
        for name, mean, var in (
            ('model', torch.ones(4), torch.ones(4)),
            ('ema', torch.tensor([0.0, 1.0, -2.0, 3.0]), torch.tensor([4.0, 1.0, 0.25, 16.0])),
        )
    }
    torch.save(dict(vae=TRAINED, **{name: {**OTHER, **norm} for name, norm in norms.items()}), tmp_path / 'a.pt')
    normalization = read_autoencoder(tmp_path / 'a.pt').normalization
    assert normalization['shift'].tolist() == [0, 1, -2, 3]
    assert normalization['scale'].tolist() == [0.5, 1, 2, 0.25]
    torch.save(dict(state_dict=TRAINED, **norms), tmp_path / 'b.pt')  # no autoencoder of REPA-E
    assert read_autoencoder(tmp_path / 'b.pt').normalization == {}


@pytest.mark.parametrize(
    'content',
    [
        {**TRAINED, **under('loss.discriminator.', DISCRIMINATOR), 'loss.logvar': torch.tensor(0.5)},
        {
            **under('autoencoder.', TRAINED),
            **under('adversarial_loss.discriminator.network.', DISCRIMINATOR),
            'reconstruction_loss.log_variance': torch.tensor(0.5),
        },
    ],
    ids=['LDM', 'eqzoo'],
)
def test_the_discriminator_and_the_log_variance_are_kept(tmp_path, content):
    torch.save(dict(state_dict=content), tmp_path / 'a.ckpt')
    stored = read_autoencoder(tmp_path / 'a.ckpt')
    assert_equal(stored.discriminator, under('network.', DISCRIMINATOR))
    assert stored.log_variance == 0.5
    assert stored.left_out == ()


def test_other_tensors_are_named():
    state = {
        **under('first_stage_model.', TRAINED),
        'first_stage_model.loss.perceptual_loss.lin0.model.1.weight': torch.ones(1),
        'cond_stage_model.logit_scale': torch.ones(1),
    }
    assert split_parts(state).left_out == (
        'loss.perceptual_loss.lin0.model.1.weight',
        'cond_stage_model.logit_scale',
    )


def test_half_an_average_is_refused(tmp_path):
    average = lit_ema(TRAINED)
    del average['model_ema.encoderconv_inweight']
    torch.save({**TRAINED, **average}, tmp_path / 'a.ckpt')
    with pytest.raises(ValueError, match=rf'model_ema\.\* lacks 1 of {len(TRAINED)} weights of encoder, .*conv_in'):
        read_autoencoder(tmp_path / 'a.ckpt')


def test_an_average_of_the_decoder_alone_is_used(tmp_path):
    """The recipe of sd-vae-ft: LitEma holds what is trained."""
    average = lit_ema({name: value for name, value in AVERAGE.items() if name.startswith(('decoder', 'post_quant'))})
    torch.save(dict(state_dict={**TRAINED, **average}), tmp_path / 'a.ckpt')
    stored = read_autoencoder(tmp_path / 'a.ckpt')
    frozen = {name: value for name, value in TRAINED.items() if name.startswith(('encoder', 'quant_conv'))}
    assert_equal(stored.state, to_diffusers({**AVERAGE, **frozen}))
    assert_equal(stored.trained, to_diffusers(TRAINED))


@pytest.mark.parametrize(
    'content',
    [
        dict(state_dict=TRAINED, state_dict_ema=AVERAGE),
        dict(model=TRAINED, model_ema=AVERAGE),
        dict(model=TRAINED, model_ema=dict(decay=torch.tensor(0.9), state_dict=under('module.', AVERAGE))),
        dict(model=TRAINED, ema_model=AVERAGE),
        dict(state_dict=TRAINED, ema=dict(decay=torch.tensor(0.9), shadow=AVERAGE)),
        dict(model=TRAINED, ema={**under('online_model.', TRAINED), **under('ema_model.', AVERAGE), 'step': STEP}),
        {**under('online_model.', TRAINED), **under('ema_model.', AVERAGE), 'initted': STEP, 'step': STEP},
        dict(state_dict={**under('vae.', TRAINED), **under('ema_vae.', AVERAGE)}),
        dict(params=TRAINED, params_ema=AVERAGE),
    ],
    ids=['timm', 'model_ema', 'nested', 'ema_model', 'shadow', 'lucidrains', 'lucidrains alone', 'beside', 'BasicSR'],
)
def test_averages_of_other_programs_are_used(tmp_path, content):
    torch.save(content, tmp_path / 'a.ckpt')
    stored = read_autoencoder(tmp_path / 'a.ckpt')
    assert_equal(stored.state, to_diffusers(AVERAGE))
    assert_equal(stored.trained, to_diffusers(TRAINED))


def test_averages_that_are_not_read_are_named(tmp_path):
    """Diffusers' EMAModel has a list without names."""
    ema = dict(decay=0.99, shadow_params=list(AVERAGE.values()))
    torch.save(dict(state_dict=TRAINED, ema_weights=ema), tmp_path / 'a.ckpt')
    with pytest.warns(UserWarning, match=r'average under ema_weights, .*is not used, the trained weights are'):
        stored = read_autoencoder(tmp_path / 'a.ckpt')
    assert_equal(stored.state, to_diffusers(TRAINED))
    torch.save(dict(state_dict=TRAINED, ema=OTHER), tmp_path / 'a.ckpt')
    assert read_autoencoder(tmp_path / 'a.ckpt').left_out == ('average of blocks.0.weight',)


WRAPPERS = ('_orig_mod.', '_fsdp_wrapped_module.', '_checkpoint_wrapped_module.', 'module.')


@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_wrappers_anywhere_in_a_name_are_taken_off(tmp_path, wrapper):
    inside = {key.replace('.', f'.{wrapper}', 1): value for key, value in TRAINED.items()}
    torch.save(dict(state_dict=under(f'module.{wrapper}', inside)), tmp_path / 'a.ckpt')
    assert_equal(read_autoencoder(tmp_path / 'a.ckpt').state, to_diffusers(TRAINED))


@pytest.mark.parametrize('prefix', ['model.', 'ae.', 'first_stage_model.model.', 'vae.net.'])
def test_any_prefix_of_both_halves_is_found(tmp_path, prefix):
    state = {**under(prefix, TRAINED), 'cond.encoder.layers.0.weight': STEP, **under('loss.', DISCRIMINATOR)}
    torch.save(dict(state_dict=state), tmp_path / 'a.ckpt')
    assert_equal(read_autoencoder(tmp_path / 'a.ckpt').state, to_diffusers(TRAINED))


def test_training_checkpoints_of_vavae_and_codebooks_load(tmp_path, capsys):
    """Buffers that only their training needs are left out, by name."""
    more = {'linear_proj.weight': STEP, 'foundation_model.blocks.0.weight': STEP, 'colorize': STEP}
    more |= {f'quantize.{name}': STEP for name in ('embedding.cluster_size', 'embedding.embed_avg', 'used')}
    more |= {'quantize.codebook_used': STEP}
    torch.save(dict(state_dict={**TRAINED, **more}), tmp_path / 'a.ckpt')
    stored = read_autoencoder(tmp_path / 'a.ckpt')
    assert_equal(stored.state, to_diffusers(TRAINED))
    assert set(stored.left_out) == set(more)
    KLAutoencoder(4, **SHAPE, weights=tmp_path / 'a.ckpt')
    names = 'linear_proj.weight, foundation_model.blocks, colorize, quantize.embedding, quantize.used, quantize.codebook_used'
    assert f"a.ckpt' also has 7 tensors of {names}, which no autoencoder needs.\n" in capsys.readouterr().err


def test_a_command_line_with_paths_is_read_past(tmp_path):
    torch.save(dict(model=TRAINED, args=argparse.Namespace(path=PurePosixPath('x'))), tmp_path / 'a.pt')
    assert_equal(read_autoencoder(tmp_path / 'a.pt').state, to_diffusers(TRAINED))


def test_files_before_torch_1_6(tmp_path):
    torch.save(dict(state_dict=TRAINED, more=print), tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    assert_equal(read_autoencoder(tmp_path / 'old.pth').state, to_diffusers(TRAINED))


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    bad = {**TRAINED, 'encoder.conv_in.bias': torch.full((8,), value)}
    torch.save(bad, tmp_path / 'a.pth')
    with pytest.raises(
        ValueError,
        match=r"a\.pth' holds NaN or infinite values in encoder\.conv_in\.bias; .* fetch it again, or take",
    ):
        KLAutoencoder(4, **SHAPE, weights=tmp_path / 'a.pth')
    torch.save(dict(model=bad, ema=TRAINED), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r'values in trained encoder\.conv_in\.bias'):
        read_autoencoder(tmp_path / 'a.pth')


def test_taesds_pair_of_files(tmp_path):
    model = TinyAutoencoder(num_blocks=(1, 2), width=8)
    numbered = to_ldm({k: v for k, v in model.state_dict().items() if not k.startswith('normalization.')})
    for name in ('encoder', 'decoder'):
        half = {key.removeprefix(f'{name}.'): value for key, value in numbered.items() if key.startswith(name)}
        save_file(half, tmp_path / f'{name}.safetensors')
    # the decoder's first layer is a clamp, without weights
    assert '0.weight' not in half
    assert '1.weight' in half
    stored = read_autoencoder([tmp_path / 'encoder.safetensors', tmp_path / 'decoder.safetensors'])
    assert_equal(stored.state, {k: v for k, v in model.state_dict().items() if not k.startswith('normalization.')})
    with pytest.raises(ValueError, match=r'got 1 files; .*\(encoder, decoder\)'):
        read_autoencoder([tmp_path / 'encoder.safetensors'])


class TestSettingsThatWeightsDoNotShow:
    @pytest.fixture
    def path(self, tmp_path):
        config = plain_config(dict(type='KLAutoencoder', **SHAPE, padding_mode='reflect'))
        torch.save(dict(state_dict=under('autoencoder.', TRAINED), autoencoder=config), tmp_path / 'a.pth')
        return tmp_path / 'a.pth'

    def test_it_travels_in_the_checkpoint(self, path):
        loaded = load_autoencoder(path)
        assert loaded.padding_mode == 'reflect'
        assert loaded.encoder.conv_in.padding_mode == 'reflect'

    def test_another_than_the_configs_is_refused(self, path):
        message = r"KLAutoencoder.padding_mode: got 'zeros', but '.*a\.pth' was trained with 'reflect'; .* set padding_mode='reflect'"
        with pytest.raises(ValueError, match=message):
            KLAutoencoder(4, **SHAPE, weights=path)
        KLAutoencoder(4, **SHAPE, padding_mode='reflect', weights=path)

    def test_other_groups_of_the_norms_are_refused(self, path):
        shape = {**SHAPE, 'norm_num_groups': 8, 'padding_mode': 'reflect'}
        with pytest.raises(
            ValueError, match=r"KLAutoencoder.norm_num_groups: got 8, but '.*a\.pth' was trained with 4"
        ):
            KLAutoencoder(4, **shape, weights=path)

    def test_a_config_overrules_it_in_a_conversion(self, path):
        stored = complete_config(read_autoencoder(path), path, dict(type='KLAutoencoder', **SHAPE))
        assert stored.config['padding_mode'] == 'zeros'


def test_load_autoencoder_takes_the_given_config_and_its_scale(tmp_path):
    torch.save(TRAINED, tmp_path / 'a.pth')
    config = dict(type='KLAutoencoder', **SHAPE, scale=0.5, weights='elsewhere.pth')
    loaded = load_autoencoder(tmp_path / 'a.pth', config)
    assert loaded.normalization.scale.tolist() == [0.5] * 4
    with pytest.raises(ValueError, match=r'does not fit the network: 7 of another shape: encoder\.conv_out'):
        load_autoencoder(tmp_path / 'a.pth', {**config, 'latent_channels': 5})


@pytest.mark.parametrize(
    ('config', 'name'),
    [
        (dict(type='os.mkdir', path='sprung'), 'os.mkdir'),
        (dict(type='Rotate'), 'Rotate'),
        (dict(type='KLAutoencoder', scale=[dict(type='os.mkdir', path='sprung')]), 'os.mkdir'),
    ],
)
def test_a_file_cannot_name_arbitrary_functions(tmp_path, monkeypatch, config, name):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict=TRAINED, autoencoder=config), tmp_path / 'a.pth')
    message = rf"needs '{name}'; .*registered autoencoders \(DiffusersAutoencoder, KLAutoencoder, "
    with pytest.raises(ValueError, match=message):
        load_autoencoder('a.pth')
    with pytest.raises(ValueError, match=message):
        complete_config(read_autoencoder('a.pth'), 'a.pth')
    assert not (tmp_path / 'sprung').exists()
    load_autoencoder('a.pth', dict(type='KLAutoencoder', **SHAPE))


def test_a_file_cannot_name_a_class_that_happens_to_be_in_memory(tmp_path):
    """Of any module of another project, the constructor would run."""
    for config in (
        dict(type='torch.nn.modules.linear.Linear', in_features=2, out_features=2),
        dict(type='KLAutoencoder', scale=dict(type='torch.nn.modules.linear.Linear')),
        plain_config(dict(type=Own, **SHAPE)),
        dict(type='ImageFolder', root='/'),
        dict(type='KLAutoencoder', scale=dict(type='ImageFolder', root='/')),
    ):
        torch.save(dict(state_dict=TRAINED, autoencoder=config), tmp_path / 'a.pth')
        with pytest.raises(ValueError, match=r"says that it needs '(torch\.nn|test_|ImageFolder).*custom_imports"):
            load_autoencoder(tmp_path / 'a.pth')
    assert type(load_autoencoder(tmp_path / 'a.pth', dict(type=Own, **SHAPE))) is Own


def test_a_class_that_a_user_registers_opens(tmp_path, monkeypatch):
    monkeypatch.setitem(AUTOENCODERS.module_dict, 'Own', Own)
    torch.save(dict(state_dict=TRAINED, autoencoder=plain_config(dict(type=Own, **SHAPE))), tmp_path / 'a.pth')
    assert type(load_autoencoder(tmp_path / 'a.pth')) is Own


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(layers_per_block=10**9), 'more layers than it has tensors'),
        (dict(block_out_channels=[8] * 3000), 'more layers than it has tensors'),
        (dict(shift=[0.0] * 20_000), 'too many values'),
        (dict(shift=[[[[[[[[[[0]]]]]]]]]]), 'too many values'),
        (dict(block_out_channels=[10**7, 8, 8]), 'of another shape'),
    ],
)
def test_a_file_cannot_describe_an_endless_network(tmp_path, change, message):
    config = {**plain_config(dict(type='KLAutoencoder', **SHAPE)), **change}
    torch.save(dict(state_dict=TRAINED, autoencoder=config), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=message):
        load_autoencoder(tmp_path / 'a.pth')


class Own(KLAutoencoder):
    """A class that is not registered."""


def test_taming_vq_gan_gives_the_same_numbers(tmp_path, monkeypatch):
    """Encoder, quantizer and decoder of taming against ours from their file, inferred from shapes alone."""
    monkeypatch.setattr(taming, 'print', lambda *_: None, raising=False)
    options = dict(ch=32, out_ch=3, ch_mult=(1, 1, 2), num_res_blocks=2, attn_resolutions=(4,), in_channels=3)
    options |= dict(resolution=16, z_channels=16, double_z=False)
    reference = torch.nn.ModuleDict(dict(encoder=taming.Encoder(**options), decoder=taming.Decoder(**options)))
    reference['quantize'] = VectorQuantizer2(64, 8, 0.25, sane_index_shape=True)
    reference['quant_conv'], reference['post_quant_conv'] = torch.nn.Conv2d(16, 8, 1), torch.nn.Conv2d(8, 16, 1)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            parameter.add_(
                0.05 * torch.randn_like(parameter) if 'embedding' not in name else torch.randn_like(parameter)
            )
    discriminator = under('loss.discriminator.', DISCRIMINATOR)
    torch.save(dict(state_dict={**reference.state_dict(), **discriminator}), tmp_path / 'last.ckpt')
    ours = load_autoencoder(tmp_path / 'last.ckpt')
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        features = reference['quant_conv'](reference['encoder'](x))
        codes, _, (_, _, indices) = reference['quantize'](features)
        expected = reference['decoder'](reference['post_quant_conv'](codes))
        # attention is written in another order of operations: float32 rounding remains; the codes are equal
        torch.testing.assert_close(ours.encode(x).mean, features, atol=1e-5, rtol=1e-5)
        assert torch.equal(ours.tokens(x), indices)
        assert indices.unique().numel() > 4
        torch.testing.assert_close(ours.decode(features), expected, atol=1e-5, rtol=1e-5)


def test_a_flipped_bit_is_found(tmp_path):
    """torch.load would hand out the wrong weight."""
    file = tmp_path / 'weights.pt'
    torch.save({'weight': torch.ones(1000)}, file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    assert (torch.load(file)['weight'] != 1).any()
    with pytest.raises(ValueError, match=r"weights.pt' cannot be read: it is damaged") as refused:
        read_file(file)
    assert 'the checksum of weights/data/0 fails' in str(refused.value.__cause__)


def test_names_of_a_class_of_someones_own_stay(tmp_path):
    """`encoder.0` is taesd's too, and would be renamed."""
    mine = {'encoder.0.weight': torch.ones(2, 3, 1, 1), 'decoder.1.weight': torch.zeros(3, 2, 1, 1)}
    for kind, names in (
        ('Mine', list(mine)),
        ('TinyAutoencoder', ['encoder.layers.0.weight', 'decoder.layers.0.weight']),
    ):
        torch.save({'state_dict': mine, 'autoencoder': {'type': kind}}, tmp_path / f'{kind}.pth')
        assert list(read_autoencoder(tmp_path / f'{kind}.pth').state) == names


def small_kl(**options):
    torch.manual_seed(0)
    return KLAutoencoder(2, (8, 8), **{'layers_per_block': 1, 'norm_num_groups': 4, **options})


def test_the_same_weights_have_the_same_digest():
    network = small_kl()
    assert autoencoder_digest(network) == autoencoder_digest(small_kl(scale=2.0, shift=1.0))
    assert autoencoder_digest(network) == autoencoder_digest(copy.deepcopy(network).eval())
    assert autoencoder_digest(network) == autoencoder_digest(network.to(memory_format=torch.channels_last))


def test_each_weight_counts_and_so_do_padding_groups_and_type():
    network = small_kl()
    digests = {autoencoder_digest(network)}
    for name, tensor in network.state_dict().items():
        if not name.startswith('normalization.'):
            changed = copy.deepcopy(network)
            changed.state_dict()[name].view(-1)[-1] += 1
            digests.add(autoencoder_digest(changed))
            assert tensor.numel() > 0
    assert len(digests) == 1 + len(network.state_dict()) - 2
    for other in (small_kl(padding_mode='reflect'), small_kl(norm_num_groups=2), small_kl().half()):
        assert autoencoder_digest(other) not in digests
