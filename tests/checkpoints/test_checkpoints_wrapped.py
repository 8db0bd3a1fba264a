"""Files of the autoencoders that DiffusersAutoencoder wraps: read, inferred, converted both ways to the bit."""

import json

import pytest
import torch
from diffusers.models import autoencoders as classes
from safetensors.torch import load_file, save_file

import eqzoo
from eqzoo.autoencoders import DiffusersAutoencoder
from eqzoo.checkpoints.autoencoder import AutoencoderFile, complete_config, read_autoencoder, set_normalization
from eqzoo.checkpoints.config import infer_config, plain_config, published_normalizations
from eqzoo.checkpoints.diffusers_classes import batch_norm_statistics, complete_fields
from eqzoo.checkpoints.write import DTYPES, export
from eqzoo.commands.cli import run
from eqzoo.commands.convert import convert
from eqzoo.loading import autoencoder_config
from eqzoo.registry import build

NAMES = ('AutoencoderKLFlux2', 'AutoencoderDC', 'AutoencoderKLQwenImage')  # Wan's class has the fields of the last
STATED = {
    'AutoencoderDC': dict(scaling_factor=0.41407),
    'AutoencoderKLQwenImage': dict(
        latents_mean=[0.1 * i for i in range(16)], latents_std=[1 + i / 7 for i in range(16)]
    ),
    'AutoencoderKLFlux2': {},
}
PUBLISHED = ('flux2_vae', 'dcae_f32', 'dcae_f64', 'qwen_image_vae')


def reference(name):
    """Diffusers' own network, small, with random weights and, for FLUX.2, random statistics."""
    torch.manual_seed(0)
    fields = complete_fields(name, DiffusersAutoencoder.smoke(dict(class_name=name))['fields'])
    network = getattr(classes, name)(**{**fields, **STATED[name]}).eval()
    if name == 'AutoencoderKLFlux2':
        network.bn.running_mean.normal_()
        network.bn.running_var.uniform_(1, 4)
    return network


def expected_normalization(name, network):
    """Shift and scale, computed apart: of all cells of a channel, for FLUX.2."""
    if name == 'AutoencoderKLFlux2':
        mean, variance = (
            getattr(network.bn, key).double().numpy().reshape(32, 4) for key in ('running_mean', 'running_var')
        )
        return mean.mean(1), 1 / (variance.mean(1) + mean.var(1) + 1e-4) ** 0.5
    config = network.config
    if name == 'AutoencoderDC':
        return [0.0] * 32, [0.41407] * 32
    return config.latents_mean, [1 / each for each in config.latents_std]


@pytest.fixture(params=NAMES)
def folder(request, tmp_path):
    network = reference(request.param)
    network.save_pretrained(tmp_path / 'published')
    return request.param, network, tmp_path / 'published'


def outputs(network, images):
    is_video = any(isinstance(module, torch.nn.Conv3d) for module in network.modules())
    encoded = network.encode(images[:, :, None] if is_video else images)
    latents = encoded.latent if hasattr(encoded, 'latent') else encoded.latent_dist.mean
    decoded = network.decode(latents).sample
    return (latents[:, :, 0], decoded[:, :, 0]) if is_video else (latents, decoded)


@torch.no_grad()
def test_a_folder_of_diffusers_loads_with_its_normalisation(folder):
    name, network, path = folder
    images = torch.rand(1, 3, 64, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latents, decoded = outputs(network, images)
    for loaded in (
        eqzoo.load(path),
        build(
            dict(DiffusersAutoencoder.smoke(dict(class_name=name)), type='DiffusersAutoencoder', weights=path)
        ).eval(),
    ):
        assert type(loaded) is DiffusersAutoencoder
        assert torch.equal(loaded.encode(images).mean, latents)
        assert torch.equal(loaded.decode(latents), decoded)
        shift, scale = expected_normalization(name, network)
        assert loaded.normalization.shift.tolist() == pytest.approx(list(shift), rel=1e-5, abs=1e-7)
        assert loaded.normalization.scale.tolist() == pytest.approx(list(scale), rel=1e-5)


def test_round_trips_are_exact(folder, tmp_path):
    name, network, path = folder
    for number, kind in enumerate(('eqzoo.pth', 'eqzoo.safetensors', 'diffusers')):
        stored = complete_config(read_autoencoder(path), path)
        path = tmp_path / f'{number}_{kind}'
        assert export(stored, path, to=kind.split('.')[0]) == []
    (path / 'eqzoo.safetensors').unlink()  # as anyone else sees the folder
    back = getattr(classes, name).from_pretrained(path)
    state = network.state_dict()
    assert set(back.state_dict()) == set(state)
    assert all(torch.equal(value, state[key]) for key, value in back.state_dict().items())
    before, after = (
        {key: value for key, value in each.config.items() if not key.startswith('_')} for each in (network, back)
    )
    plain = json.loads(json.dumps(before)), json.loads(json.dumps(after))
    for key in plain[0]:
        assert plain[1][key] == (
            pytest.approx(plain[0][key], rel=1e-6) if key.startswith('latents_') else plain[0][key]
        )


@pytest.mark.parametrize('dtype', ['fp16', 'bf16'])
def test_flux2s_batch_norm_keeps_its_precision(tmp_path, dtype):
    """Rounded, it would look like another normalisation, and one statistic would replace the four of a channel."""
    network = reference('AutoencoderKLFlux2')
    network.save_pretrained(tmp_path / 'published')
    run(convert, [str(tmp_path / 'published'), str(tmp_path / 'a.pth'), '--to', 'eqzoo', '--dtype', dtype])
    run(convert, [str(tmp_path / 'a.pth'), str(tmp_path / 'out'), '--to', 'diffusers'])
    (tmp_path / 'out' / 'eqzoo.safetensors').unlink()
    written = load_file(tmp_path / 'out' / 'diffusion_pytorch_model.safetensors')
    for name, value in network.state_dict().items():
        is_statistic = name in ('bn.running_mean', 'bn.running_var') or not value.is_floating_point()
        assert torch.equal(written[name], value if is_statistic else value.to(DTYPES[dtype])), name


def test_a_new_normalisation_reaches_diffusers_fields(folder, tmp_path):
    name, _, path = folder
    stored = complete_config(read_autoencoder(path), path)
    set_normalization(stored, dict(scale=0.5))
    export(stored, tmp_path / 'out', to='diffusers')
    (tmp_path / 'out' / 'eqzoo.safetensors').unlink()
    assert read_autoencoder(tmp_path / 'out').normalization['scale'].tolist() == pytest.approx(
        [0.5] * len(stored.normalization['scale']), rel=1e-5
    )
    opened = getattr(classes, name).from_pretrained(tmp_path / 'out')
    if name == 'AutoencoderKLFlux2':
        assert (opened.bn.running_var + 1e-4).sqrt().tolist() == pytest.approx([2.0] * 128)
        assert opened.bn.running_mean.tolist() == [0.0] * 128
    elif name == 'AutoencoderDC':
        assert opened.config.scaling_factor == 0.5
    else:
        assert opened.config.latents_std == [2.0] * 16


@pytest.mark.parametrize('name', ['AutoencoderDC', 'AutoencoderKLQwenImage'])
def test_weights_without_a_normalisation_need_one_for_diffusers(tmp_path, name):
    """It would assume a scale of 1, or compute with no statistics at all; the published numbers may be of another one."""
    network = reference(name)
    fields = DiffusersAutoencoder.smoke(dict(class_name=name))['fields']
    config = plain_config(dict(type='DiffusersAutoencoder', class_name=name, fields=fields))
    stored = AutoencoderFile(network.state_dict(), config)
    with pytest.raises(
        ValueError, match=f"states no scale .* diffusers' {name} has to state one; .* give --scale FLOAT"
    ):
        export(stored, tmp_path / 'out', to='diffusers')
    assert not (tmp_path / 'out').exists()
    set_normalization(stored, dict(scale=1.0))
    assert export(stored, tmp_path / 'out', to='diffusers') == []


def test_configs_of_the_zoo_with_the_same_network_are_found():
    config = autoencoder_config('configs/_base_/autoencoders/qwen_image_vae.py')
    found = published_normalizations(plain_config(config))
    assert found == {'configs/_base_/autoencoders/qwen_image_vae.py': dict(mean=config['mean'], std=config['std'])}
    found = published_normalizations(plain_config(autoencoder_config('configs/_base_/autoencoders/dcae_f32.py')))
    assert found == {'configs/_base_/autoencoders/dcae_f32.py': dict(scale=0.41407)}


def test_what_no_field_says_is_kept_and_reported(tmp_path):
    reference('AutoencoderDC').save_pretrained(tmp_path / 'in')
    stored = complete_config(read_autoencoder(tmp_path / 'in'), 'in')
    set_normalization(stored, dict(mean=1.0, std=2.0))
    (note,) = export(stored, tmp_path / 'out', to='diffusers')
    assert note.startswith("diffusers' AutoencoderDC has no field for this normalisation: kept in eqzoo.safetensors")
    assert read_autoencoder(tmp_path / 'out').normalization['shift'].tolist() == [1.0] * 32


def test_the_command_converts_both_ways(tmp_path, capsys):
    network = reference('AutoencoderDC')
    network.save_pretrained(tmp_path / 'in')
    run(convert, [str(tmp_path / 'in'), str(tmp_path / 'mid.safetensors'), '--to', 'eqzoo'])
    assert 'autoencoder    DiffusersAutoencoder, from the file\n' in capsys.readouterr().out
    run(convert, [str(tmp_path / 'mid.safetensors'), str(tmp_path / 'out'), '--to', 'diffusers'])
    names = {}
    exec(capsys.readouterr().out.split('\n\n')[1], names)
    assert type(names['autoencoder']) is classes.AutoencoderDC
    state = names['autoencoder'].state_dict()
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    with pytest.raises(SystemExit, match="convert --to ldm: LDM's code has no network like diffusers' AutoencoderDC"):
        run(convert, [str(tmp_path / 'in'), str(tmp_path / 'out.ckpt'), '--to', 'ldm'])


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_architectures_are_inferred_from_names_and_shapes(name):
    config = autoencoder_config(f'configs/_base_/autoencoders/{name}.py')
    with torch.device('meta'):
        wanted = build({**config, 'weights': None}).state_dict()
        inferred = infer_config(wanted)
        found = build(inferred).state_dict()
    assert inferred['class_name'] == config['class_name']
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in wanted.items()}
    fields = [complete_fields(config['class_name'], each.get('fields')) for each in (config, inferred)]
    assert json.loads(json.dumps(fields[0])) == json.loads(json.dumps(fields[1]))


def test_a_single_file_of_flux2_with_its_own_names(tmp_path):
    """As Black Forest Labs and ComfyUI have it: LDM's names, the 1x1 convolutions inside, the batch norm beside."""
    fields = dict(block_out_channels=[32, 32], layers_per_block=1, latent_channels=4)
    network = classes.AutoencoderKLFlux2(
        **fields, down_block_types=['DownEncoderBlock2D'] * 2, up_block_types=['UpDecoderBlock2D'] * 2
    )
    network.bn.running_var.fill_(4.0)
    from eqzoo.checkpoints.keys import to_ldm

    state = network.state_dict()
    own = {**to_ldm({key: value for key, value in state.items() if not key.startswith('bn.')})}
    own = {
        key.replace('post_quant_conv', 'decoder.post_quant_conv') if 'post' in key else key: v for key, v in own.items()
    }
    own = {f'encoder.{key}' if key.startswith('quant_conv') else key: value.contiguous() for key, value in own.items()}
    assert {'encoder.quant_conv.weight', 'decoder.post_quant_conv.bias', 'encoder.mid.attn_1.q.weight'} <= set(own)
    save_file({**own, **{key: value for key, value in state.items() if key.startswith('bn.')}}, tmp_path / 'flux2.sft')
    found = read_autoencoder(tmp_path / 'flux2.sft')
    assert set(found.network) == set(state)
    assert all(torch.equal(found.network[key], value) for key, value in state.items())
    assert found.normalization['scale'].tolist() == pytest.approx([0.5] * 4, rel=1e-4)


@pytest.mark.parametrize(
    ('bad', 'message'),
    [
        (dict(encoder_layers_per_block=[10**9] * 5), 'more layers than it has tensors'),
        (dict(encoder_layers_per_block='x'), 'cannot be built from them|more layers'),
        (
            dict(_class_name='ConsistencyDecoderVAE'),
            "got _class_name 'ConsistencyDecoderVAE'; expected AutoencoderKL, ",
        ),
        (dict(latent_channels=64), 'does not fit the network'),
    ],
)
def test_hostile_and_damaged_configs_are_one_message(tmp_path, bad, message):
    reference('AutoencoderDC').save_pretrained(tmp_path / 'in')
    config = json.loads((tmp_path / 'in' / 'config.json').read_text())
    (tmp_path / 'in' / 'config.json').write_text(json.dumps({**config, **bad}))
    with pytest.raises(ValueError, match=message):
        eqzoo.load(tmp_path / 'in')


def test_words_of_other_networks_are_not_taken_for_ldms(tmp_path):
    """DC-AE has `norm`, `proj_out` and levels `down_blocks.0.0`: LDM's words, with another meaning."""
    reference('AutoencoderDC').save_pretrained(tmp_path / 'in')
    state = load_file(tmp_path / 'in' / 'diffusion_pytorch_model.safetensors')
    assert any('.norm.' in key for key in state)
    assert set(read_autoencoder(tmp_path / 'in' / 'diffusion_pytorch_model.safetensors').state) == set(state)


def test_a_damaged_batch_norm_states_nothing():
    weights = {
        'bn.running_mean': torch.zeros(7),
        'bn.running_var': torch.ones(7),
        'decoder.conv_in.weight': torch.zeros(8, 4, 3, 3),
    }
    assert batch_norm_statistics(weights) == {}
    assert batch_norm_statistics({}) == {}
