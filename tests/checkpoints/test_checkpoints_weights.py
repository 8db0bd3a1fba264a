"""Weights files: every layout gives the same network, and a file loads completely or not at all."""

import collections
import sys
import types

import pytest
import torch
from safetensors.torch import save_file
from taming.modules.diffusionmodules import model as taming

from eqzoo.autoencoders import KLAutoencoder
from eqzoo.checkpoints.autoencoder import read_autoencoder
from eqzoo.checkpoints.generator import read_generator
from eqzoo.checkpoints.keys import to_diffusers
from eqzoo.checkpoints.read import read_file, split_parts, weights_sha256
from eqzoo.checkpoints.write import writable_format
from eqzoo.files import sha256_of
from eqzoo.loading import load_component

# 32: taming's GroupNorm always has 32 groups, so this is as narrow as a comparison gets.
SHAPE = dict(block_out_channels=(32, 32, 64), layers_per_block=1, attention_levels=(1, 2))


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    autoencoder = KLAutoencoder(4, **SHAPE, scale=0.5, shift=0.25)
    with torch.no_grad():
        for parameter in autoencoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return autoencoder


def network_state(model):
    """The model's state dict as diffusers would save it."""
    return {key: value for key, value in model.state_dict().items() if not key.startswith('normalization.')}


def to_ldm(state, num_levels=3):
    """Rename to LDM's layout: the inverse of what is tested, by plain replacement."""
    renamed = {}
    for key, value in state.items():
        for i in range(num_levels):
            key = key.replace(f'decoder.up_blocks.{i}.', f'decoder.up.{num_levels - 1 - i}.')
        for new, old in [
            ('mid_block.resnets.0', 'mid.block_1'),
            ('mid_block.resnets.1', 'mid.block_2'),
            ('mid_block.attentions.0', 'mid.attn_1'),
            ('down_blocks', 'down'),
            ('resnets', 'block'),
            ('attentions', 'attn'),
            ('downsamplers.0', 'downsample'),
            ('upsamplers.0', 'upsample'),
            ('conv_shortcut', 'nin_shortcut'),
            ('conv_norm_out', 'norm_out'),
            ('group_norm', 'norm'),
            ('to_q', 'q'),
            ('to_k', 'k'),
            ('to_v', 'v'),
            ('to_out.0', 'proj_out'),
        ]:
            key = key.replace(new, old)
        is_attention = '.attn' in key and value.ndim == 2
        renamed[key] = value[:, :, None, None] if is_attention else value
    return renamed


def to_old_diffusers(state):
    """Rename to diffusers' older attention names, as sd-vae-ft-mse has them."""
    names = dict(to_q='query', to_k='key', to_v='value')
    names['to_out.0'] = 'proj_attn'
    renamed = {}
    for key, value in state.items():
        for new, old in names.items():
            key = key.replace(new, old)
        renamed[key] = value
    return renamed


def load(path, **arguments):
    torch.manual_seed(1)
    return KLAutoencoder(4, **SHAPE, **arguments, weights=path)


def assert_same_network(left, right):
    # Other initialisation, same weights: equal to the bit.
    for key, value in network_state(left).items():
        assert torch.equal(value, right.state_dict()[key]), key


def companions():
    return {'loss.logvar': torch.zeros(()), 'loss.discriminator.main.0.weight': torch.zeros(4, 3, 4, 4)}


def prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}


LAYOUTS = {
    'diffusers': network_state,
    'diffusers with old attention names': lambda model: to_old_diffusers(network_state(model)),
    'LDM': lambda model: to_ldm(network_state(model)),
    'LDM with its losses, in a Lightning file': lambda model: {
        'state_dict': {**to_ldm(network_state(model)), **companions()},
        'global_step': 7,
    },
    'inside Stable Diffusion': lambda model: {
        'state_dict': {
            **prefixed('first_stage_model.', {**to_ldm(network_state(model)), **companions()}),
            'model.diffusion_model.out.2.bias': torch.zeros(4),
            'cond_stage_model.logit_scale': torch.zeros(()),
        }
    },
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_layout_loads(model, tmp_path, layout):
    path = tmp_path / 'model.ckpt'
    torch.save(LAYOUTS[layout](model), path)
    loaded = load(path, scale=3.0)
    assert_same_network(model, loaded)
    # None of these files holds a normalisation: the arguments' stays.
    assert torch.equal(loaded.normalization.scale, torch.full((4,), 3.0))


@pytest.mark.parametrize('layout', ['diffusers', 'diffusers with old attention names', 'LDM'])
def test_safetensors_load(model, tmp_path, layout):
    path = tmp_path / 'model.safetensors'
    save_file({key: value.contiguous() for key, value in LAYOUTS[layout](model).items()}, path)
    assert_same_network(model, load(path))


@pytest.mark.parametrize('name', ['flux.sft', 'a.SAFETENSORS', 'blob', 'a.pt', 'a.ckpt', 'a.safetensors'])
@pytest.mark.parametrize('kind', ['safetensors', 'torch'])
def test_content_decides_not_the_name(model, tmp_path, name, kind):
    save = save_file if kind == 'safetensors' else torch.save
    save({key: value.contiguous() for key, value in LAYOUTS['LDM'](model).items()}, tmp_path / name)
    assert_same_network(model, load(tmp_path / name))


@pytest.mark.parametrize('dtype', [torch.int8, torch.bool, torch.complex64, torch.int64])
def test_numbers_that_are_no_weights_are_refused(model, tmp_path, dtype):
    state = network_state(model)
    state['encoder.conv_in.bias'] = state['encoder.conv_in.bias'].to(dtype)
    torch.save(state, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=f'1 of numbers that are no weights: encoder.conv_in.bias {dtype}'):
        load(tmp_path / 'a.pth')


@pytest.mark.parametrize('dtype', [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float64])
def test_floats_of_other_sizes_are_weights(model, tmp_path, dtype):
    torch.save({key: value.to(dtype) for key, value in network_state(model).items()}, tmp_path / 'a.pth')
    assert torch.equal(load(tmp_path / 'a.pth').last_layer, model.last_layer.to(dtype).float())
    bad = {**network_state(model), 'encoder.conv_in.bias': torch.full((32,), torch.nan).to(dtype)}
    torch.save(bad, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='holds NaN or infinite values in encoder.conv_in.bias'):
        load(tmp_path / 'a.pth')


@pytest.mark.parametrize('scale', [0.0, -0.5])
def test_a_normalisation_that_no_generator_can_use_is_refused(model, tmp_path, scale):
    state = {**model.state_dict(), 'normalization.scale': torch.tensor([0.5, 0.5, scale, 0.5])}
    torch.save(state, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=rf'states a normalisation of scale .*{scale}.*latent_stats'):
        load(tmp_path / 'a.pth')


def test_names_that_a_terminal_obeys_are_spelled_out(model, tmp_path):
    torch.save({**network_state(model), 'x\x1b[2J\n' + 'y' * 500: torch.zeros(1)}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r'1 unexpected: x\\x1b\[2J\\x0ay+…') as error:
        load(tmp_path / 'a.pth')
    assert len(str(error.value)) < 600


def test_a_folder_of_a_run_stands_for_its_newest_checkpoint(model, tmp_path):
    other = {key: value + 1 for key, value in network_state(model).items()}
    torch.save(other, tmp_path / 'iter_9.pth')
    torch.save(network_state(model), tmp_path / 'iter_10.pth')
    torch.save(other, tmp_path / 'best_psnr_iter_20.pth')
    assert_same_network(model, load(tmp_path))
    assert_same_network(model, load_component(tmp_path))
    assert weights_sha256(tmp_path) == sha256_of(tmp_path / 'iter_10.pth')
    (tmp_path / 'iter_9.pth').unlink()
    (tmp_path / 'iter_10.pth').rename(tmp_path / 'best_mse_iter_30.pth')
    assert_same_network(model, load(tmp_path))


def test_other_folders_are_named(tmp_path):
    (tmp_path / 'weights.safetensors').touch()
    with pytest.raises(
        ValueError, match=r'folder without a checkpoint .*; give one of its files: weights\.safetensors'
    ):
        read_file(tmp_path)
    (tmp_path / 'config.json').write_text('{"_class_name": "DiTTransformer2DModel"}')
    with pytest.raises(ValueError, match=r"of diffusers' folders, eqzoo reads those of an autoencoder"):
        read_generator(tmp_path)
    with pytest.raises(ValueError, match=r"_class_name 'DiTTransformer2DModel'; expected AutoencoderKL"):
        load_component(tmp_path)


def test_a_pair_is_taken_wherever_weights_are(model, tmp_path):
    for name in ('encoder', 'decoder'):
        half = {f'{name}.{k}': v for k, v in getattr(model, name).state_dict().items()}
        torch.save({key.removeprefix(f'{name}.'): value for key, value in half.items()}, tmp_path / f'{name}.pth')
    pair = f'{tmp_path}/encoder.pth,{tmp_path}/decoder.pth'
    shape = dict(SHAPE, quant_conv=False)
    for source in (pair, pair.split(',')):
        loaded = KLAutoencoder(4, **shape, weights=source)
        assert torch.equal(loaded.encoder.conv_in.weight, model.encoder.conv_in.weight)
        assert torch.equal(loaded.decoder.conv_out.weight, model.decoder.conv_out.weight)
        assert KLAutoencoder.requirements(dict(weights=source)) == []
        assert weights_sha256(source) == sha256_of(*pair.split(','))
    (missing,) = KLAutoencoder.requirements(dict(weights=f'{tmp_path}/encoder.pth,nowhere.pth'))
    assert missing.where == 'nowhere.pth'
    with pytest.raises(ValueError, match=r'two files, .*, have no place for them; .*join them first'):
        writable_format(pair)


def test_half_precision_files_load_in_full_precision(model, tmp_path):
    path = tmp_path / 'half.safetensors'
    save_file({key: value.half() for key, value in network_state(model).items()}, path)
    loaded = load(path)
    assert loaded.last_layer.dtype == torch.float32
    assert torch.equal(loaded.last_layer, model.last_layer.half().float())


def test_eqzoo_checkpoint_brings_its_normalisation(model, tmp_path):
    path = tmp_path / 'epoch_1.pth'
    state = {**prefixed('autoencoder.', model.state_dict()), 'discriminator.main.0.weight': torch.zeros(3)}
    torch.save(dict(state_dict=state, meta=dict(iter=1)), path)
    loaded = load(path, scale=3.0)
    assert_same_network(model, loaded)
    assert torch.equal(loaded.normalization.scale, model.normalization.scale)
    assert torch.equal(loaded.normalization.shift, model.normalization.shift)


def test_the_averaged_weights_of_an_eqzoo_checkpoint_are_preferred(model, tmp_path):
    """They are what was validated."""
    raw = prefixed('autoencoder.', {key: torch.zeros_like(value) for key, value in model.state_dict().items()})
    torch.save(dict(state_dict=raw, ema_state_dict=model.state_dict()), tmp_path / 'iter_1.pth')
    assert_same_network(model, load(tmp_path / 'iter_1.pth'))


def test_taming_networks_give_the_same_numbers(tmp_path):
    """The LDM layout against the code that it comes from, with attention at two levels."""
    torch.manual_seed(0)
    # Resolutions 16, 8, 4 are levels 0, 1, 2.
    options = dict(ch=32, out_ch=3, ch_mult=(1, 1, 2), num_res_blocks=1, attn_resolutions=(8, 4))
    options |= dict(in_channels=3, resolution=16, z_channels=4)
    reference = torch.nn.ModuleDict(
        dict(encoder=taming.Encoder(**options, double_z=True), decoder=quiet(taming.Decoder, options))
    )
    reference['quant_conv'] = torch.nn.Conv2d(8, 8, 1)
    reference['post_quant_conv'] = torch.nn.Conv2d(4, 4, 1)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    torch.save(reference.state_dict(), tmp_path / 'model.ckpt')
    loaded = load(tmp_path / 'model.ckpt')
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        moments = reference['quant_conv'](reference['encoder'](x))
        z = moments[:, :4]
        expected = reference['decoder'](reference['post_quant_conv'](z))
        # Attention is written in another order of operations: float32 rounding remains.
        torch.testing.assert_close(loaded.encode(x).parameters, moments, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(loaded.decode(z), expected, atol=1e-5, rtol=1e-5)


def test_latents_of_other_channels_than_features_give_the_same_numbers(tmp_path):
    """LDM's `embed_dim` and `z_channels`: its convolutions between networks and latents change the channels."""
    torch.manual_seed(0)
    options = dict(ch=32, out_ch=3, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(), resolution=16)
    options |= dict(in_channels=3, z_channels=6)
    reference = torch.nn.ModuleDict(
        dict(encoder=taming.Encoder(**options, double_z=True), decoder=quiet(taming.Decoder, options))
    )
    reference['quant_conv'] = torch.nn.Conv2d(12, 8, 1)
    reference['post_quant_conv'] = torch.nn.Conv2d(4, 6, 1)
    torch.save(reference.state_dict(), tmp_path / 'model.ckpt')
    loaded = load_component(tmp_path / 'model.ckpt')
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        moments = reference['quant_conv'](reference['encoder'](x))
        torch.testing.assert_close(loaded.encode(x).parameters, moments, atol=1e-5, rtol=1e-5)
        expected = reference['decoder'](reference['post_quant_conv'](moments[:, :4]))
        torch.testing.assert_close(loaded.decode(moments[:, :4]), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r'feature_channels: got 6 for latents of 4 channels without quant_conv'):
        KLAutoencoder(4, (32, 64), feature_channels=6, quant_conv=False)


def quiet(cls, options):
    """Silence the decoder, which prints its latent shape."""
    taming.print = lambda *_: None
    try:
        return cls(**options)
    finally:
        del taming.print


def test_conversion_is_the_identity_on_present_names(model):
    state = model.state_dict()
    assert list(to_diffusers(state)) == list(state)


def test_selection_keeps_only_the_autoencoder():
    state = {'vae.encoder.a': torch.ones(1), 'vae.loss.b': torch.ones(1), 'unet.c': torch.ones(1)}
    assert list(split_parts(state).network) == ['encoder.a']
    assert list(split_parts({'encoder.a': torch.ones(1), 'foundation_model.b': torch.ones(1)}).network) == ['encoder.a']


def test_missing_unexpected_and_misshapen_keys_are_all_named(model, tmp_path):
    state = network_state(model)
    del state['encoder.conv_in.weight']
    state |= {f'extra.{i}': torch.zeros(1) for i in range(7)}
    state['decoder.conv_out.bias'] = torch.zeros(4)
    torch.save(state, tmp_path / 'model.pth')
    with pytest.raises(ValueError, match='does not fit the network') as error:
        load(tmp_path / 'model.pth')
    message = str(error.value)
    assert message.startswith('KLAutoencoder.weights: ')
    assert '1 missing: encoder.conv_in.weight;' in message
    assert '7 unexpected: extra.0, extra.1, extra.2, extra.3, extra.4, …;' in message
    assert '1 of another shape: decoder.conv_out.bias (4,), not (3,).' in message


def test_weights_of_another_structure_are_refused(model, tmp_path):
    torch.save(to_ldm(network_state(model)), tmp_path / 'model.ckpt')
    with pytest.raises(ValueError, match=r'60 unexpected: encoder.down_blocks.1.attentions.0.group_norm'):
        KLAutoencoder(4, (32, 32, 64), layers_per_block=1, weights=tmp_path / 'model.ckpt')


def test_half_a_normalisation_is_refused(model, tmp_path):
    state = model.state_dict()
    del state['normalization.shift']
    torch.save(state, tmp_path / 'model.pth')
    with pytest.raises(ValueError, match=r'1 missing: normalization.shift\.'):
        load(tmp_path / 'model.pth')


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"no file 'nowhere\.pth'; correct weights=PATH"):
        load('nowhere.pth')
    with pytest.raises(FileNotFoundError, match=r'fetch it: python tools/download\.py sd-vae-16$'):
        read_autoencoder('eqzoo://sd-vae-16')


@pytest.mark.parametrize('name', ['model.safetensors', 'model.pth'])
@pytest.mark.parametrize('part', ['half', 'nothing', 'another kind'])
def test_damaged_files_are_refused(model, tmp_path, name, part):
    path = tmp_path / name
    (save_file if name.endswith('.safetensors') else torch.save)(network_state(model), path)
    whole = path.read_bytes()
    path.write_bytes({'half': whole[: len(whole) // 2], 'nothing': b'', 'another kind': b'<html>404</html>'}[part])
    with pytest.raises(ValueError, match=rf'{name}. cannot be read'):
        read_autoencoder(path)


def complaint(path, content):
    path.write_bytes(content)
    try:
        read_autoencoder(path)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'before torch 1.6'])
def test_torch_files_damaged_anywhere_are_refused(tmp_path, zipped):
    """Where the damage is decides whether torch raises KeyError, IndexError, struct.error or others."""
    path = tmp_path / 'model.pth'
    torch.save({'weight': torch.zeros(2)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    cut = [complaint(path, whole[:end]) for end in range(0, len(whole), 5)]
    assert all(found and found.startswith('weights: ') for found in cut)
    changed = [complaint(path, whole[:at] + b'\xff' + whole[at + 1 :]) for at in range(len(whole))]
    assert any(changed)
    assert all(found is None or found.startswith('weights: ') for found in changed)


@pytest.mark.parametrize(
    'content', [{}, {'epoch': 3}, {1: torch.zeros(2)}, torch.zeros(2), {'state_dict': [torch.zeros(2)]}]
)
def test_files_without_named_tensors_are_refused(tmp_path, content):
    torch.save(content, tmp_path / 'model.pth')
    with pytest.raises(ValueError, match=r'model.pth. holds no named tensors'):
        read_autoencoder(tmp_path / 'model.pth')


def test_lightning_files_load_without_lightning(model, tmp_path, monkeypatch):
    """LDM's released checkpoints name Lightning's callback class as a dictionary key."""
    module = types.ModuleType('pytorch_lightning.callbacks.model_checkpoint')
    callback = type('ModelCheckpoint', (), {'__module__': module.__name__})
    attributes = type('AttributeDict', (dict,), {'__module__': module.__name__})
    module.ModelCheckpoint, module.AttributeDict = callback, attributes
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        content = dict(state_dict=collections.OrderedDict(to_ldm(network_state(model))))
        content |= dict(callbacks={callback: dict(best=torch.tensor(1.0))}, hyper_parameters=attributes(lr=1e-3))
        torch.save(content, tmp_path / 'model.ckpt')
    assert module.__name__ not in sys.modules
    assert_same_network(model, load(tmp_path / 'model.ckpt'))
