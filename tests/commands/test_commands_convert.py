"""`tools/convert.py`: from a training run to every format, and what it says."""

import json
import resource
import subprocess
import sys

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from eqzoo.autoencoders import KLAutoencoder, TinyAutoencoder
from eqzoo.checkpoints.autoencoder import AutoencoderFile, read_autoencoder
from eqzoo.checkpoints.config import plain_config
from eqzoo.checkpoints.keys import to_ldm
from eqzoo.checkpoints.write import export, write_normalization
from eqzoo.commands.cli import run
from eqzoo.commands.convert import convert, set_scale_and_shift
from eqzoo.commands.train import train
from eqzoo.engine.work_dir import own_file
from eqzoo.loading import load_autoencoder

WIDE = dict(block_out_channels=(32, 64), layers_per_block=1)


def network(model):
    return {key: value for key, value in model.state_dict().items() if not key.startswith('normalization.')}


@pytest.fixture
def ldm_file(tmp_path):
    """A bare LDM file: no config, no scale."""
    state = to_ldm(network(KLAutoencoder(**WIDE)))
    state['loss.perceptual_loss.lin0.model.1.weight'] = torch.ones(1)
    torch.save(dict(state_dict=state), tmp_path / 'model.ckpt')
    return tmp_path / 'model.ckpt'


def run_convert(*words):
    run(convert, [str(word) for word in words])


@pytest.fixture
def checkpoint(tmp_path):
    """A smoke run's checkpoint, with an average and a discriminator."""
    average = "custom_hooks={'ema': {'type': 'EMAHook', 'decay': 0.5}}"
    train('configs/eqvae/sd16_rot_scale.py', overrides=[f'work_dir={tmp_path}/run', average], smoke=True)
    return max((tmp_path / 'run').glob('iter_*.pth'))


def test_bare_ldm_to_diffusers_and_back(ldm_file, tmp_path, capsys):
    run_convert(ldm_file, tmp_path / 'out', '--to', 'diffusers', '--scale', '0.18215')
    printed = capsys.readouterr().out
    assert printed == (
        'autoencoder    KLAutoencoder, from shapes, norms with 32 groups\n'
        'parameters     658,375, 124 tensors\n'
        'normalisation  shift 0.0, scale 0.18215\n'
        'weights        as in the source, no average\n'
        'discriminator  none in the source\n'
        'left out       1 tensor of loss.perceptual_loss\n'
        '\n'
        'from diffusers import AutoencoderKL\n'
        f"autoencoder = AutoencoderKL.from_pretrained('{tmp_path}/out')\n"
    )
    assert AutoencoderKL.from_pretrained(tmp_path / 'out').config.scaling_factor == 0.18215
    run_convert(tmp_path / 'out', tmp_path / 'back.ckpt', '--to', 'ldm')
    before, after = (torch.load(path)['state_dict'] for path in (ldm_file, tmp_path / 'back.ckpt'))
    del before['loss.perceptual_loss.lin0.model.1.weight']
    assert set(before) == set(after)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_what_is_printed_opens_the_file(ldm_file, tmp_path, capsys):
    run_convert(ldm_file, tmp_path / 'out.safetensors', '--to', 'eqzoo')
    printed = capsys.readouterr().out
    assert 'normalisation  not stated: raw latents\n' in printed
    names = {}
    exec(printed.split('\n\n')[1], names)
    assert names['autoencoder'].normalization.scale.tolist() == [1.0] * 4


def test_without_a_scale_diffusers_is_refused_and_a_config_helps(ldm_file, tmp_path):
    with pytest.raises(SystemExit, match=r'error: .*states no scale.*give --scale FLOAT, or --config CONFIG'):
        run_convert(ldm_file, tmp_path / 'out', '--to', 'diffusers')
    for text in ('autoencoder = {}', 'model = dict(autoencoder={})'):
        config = tmp_path / 'config.py'
        config.write_text(text.format(repr(dict(type='KLAutoencoder', **WIDE, scale=0.25))))
        run_convert(ldm_file, tmp_path / 'out', '--to', 'diffusers', '--config', config, '--overwrite')
        assert AutoencoderKL.from_pretrained(tmp_path / 'out').config.scaling_factor == 0.25


def test_an_autoencoder_of_ones_own_is_named_by_a_config(own, tmp_path):
    run_convert(own.file, tmp_path / 'out.pth', '--to', 'eqzoo', '--config', own.config)
    written = load_autoencoder(tmp_path / 'out.pth')
    assert type(written).__name__ == 'OwnAutoencoder'
    for name, tensor in torch.load(own.file)['state_dict'].items():
        assert torch.equal(written.state_dict()[name], tensor), name


def test_a_config_of_another_network_lists_the_keys(ldm_file, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(f"autoencoder = dict(type='KLAutoencoder', **{WIDE!r}, attention_levels=(1,))")
    with pytest.raises(
        SystemExit, match=r'model.ckpt does not fit the network: 30 missing: encoder\.down_blocks\.1\.att'
    ):
        run_convert(ldm_file, tmp_path / 'out.pth', '--to', 'eqzoo', '--config', config)
    config.write_text('seed = 1')
    with pytest.raises(SystemExit, match=r'config\.py has no autoencoder'):
        run_convert(ldm_file, tmp_path / 'out.pth', '--to', 'eqzoo', '--config', config)


def test_incomplete_weights_are_listed(ldm_file, tmp_path):
    content = torch.load(ldm_file)
    del content['state_dict']['quant_conv.bias']
    torch.save(content, ldm_file)
    with pytest.raises(SystemExit, match=r'1 missing: quant_conv\.bias'):
        run_convert(ldm_file, tmp_path / 'out.pth', '--to', 'eqzoo')


def test_a_training_checkpoint_goes_everywhere_and_comes_back(checkpoint, tmp_path, capsys):
    trained = torch.load(checkpoint, weights_only=True)
    run_convert(checkpoint, tmp_path / 'a', '--to', 'diffusers')
    printed = capsys.readouterr().out
    assert 'from the file' in printed
    assert 'weights        average, and the trained ones beside it\ndiscriminator  included\n' in printed
    run_convert(tmp_path / 'a', tmp_path / 'b.safetensors', '--to', 'ldm')
    assert 'no place for the trained weights beside their average' in capsys.readouterr().out
    run_convert(tmp_path / 'a', tmp_path / 'b.ckpt', '--to', 'ldm')
    run_convert(tmp_path / 'b.ckpt', tmp_path / 'c.pth', '--to', 'eqzoo')
    back = torch.load(tmp_path / 'c.pth', weights_only=True)
    assert back['autoencoder'] == trained['autoencoder']
    for part in ('state_dict', 'ema_state_dict'):
        assert set(back[part]) == set(trained[part])
        assert all(torch.equal(back[part][key], value) for key, value in trained[part].items())
    flat = load_file(tmp_path / 'b.safetensors')
    assert torch.equal(flat['encoder.conv_in.bias'], trained['ema_state_dict']['encoder.conv_in.bias'])
    discriminators = [key for key in trained['state_dict'] if '.discriminator.' in key]
    assert discriminators
    assert len([key for key in flat if key.startswith('loss.discriminator.main.')]) == len(discriminators)
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    expected = load_autoencoder(checkpoint).latents(images)
    for name in ('a', 'b.safetensors', 'c.pth'):
        assert torch.equal(load_autoencoder(tmp_path / name).latents(images), expected)


def test_taesds_pair(tmp_path):
    model = TinyAutoencoder(num_blocks=(1, 2), width=8)
    numbered = to_ldm(network(model))
    for name in ('encoder', 'decoder'):
        half = {key.removeprefix(f'{name}.'): value for key, value in numbered.items() if key.startswith(name)}
        torch.save(half, tmp_path / f'{name}.pth')
    run_convert(f'{tmp_path}/encoder.pth,{tmp_path}/decoder.pth', tmp_path / 'out', '--to', 'diffusers')
    state = read_autoencoder(tmp_path / 'out').state
    assert all(torch.equal(state[key], value) for key, value in network(model).items())


def test_an_existing_destination_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(SystemExit, match='already exists; .* --overwrite'):
        run_convert(tmp_path / 'nowhere.ckpt', tmp_path, '--to', 'diffusers')


def test_a_destination_that_another_command_writes_is_refused(ldm_file, tmp_path):
    words = [str(ldm_file), str(tmp_path / 'out/vae.safetensors'), '--to', 'eqzoo']
    with (
        own_file(words[1], '--exports'),
        pytest.raises(SystemExit, match=r'DESTINATION: .*vae.safetensors is in use by another run \(process \d+ on'),
    ):
        run(convert, words)
    assert not list((tmp_path / 'out').iterdir())
    run(convert, words)
    assert [each.name for each in (tmp_path / 'out').iterdir()] == ['vae.safetensors']


def test_the_format_must_be_given(ldm_file, tmp_path):
    result = subprocess.run(
        [sys.executable, 'tools/convert.py', str(ldm_file), str(tmp_path / 'out.pth')],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 2
    assert '--to' in result.stderr


def test_a_new_scale_keeps_the_shift_and_does_not_replace_one_per_channel(tmp_path):
    torch.save(KLAutoencoder(**WIDE, scale=1.5, shift=0.25).state_dict(), tmp_path / 'shifted.pt')
    torch.save(KLAutoencoder(**WIDE, std=(0.5, 1.0, 2.0, 4.0)).state_dict(), tmp_path / 'own.pt')
    run_convert(tmp_path / 'shifted.pt', tmp_path / 'out', '--to', 'diffusers', '--scale', '2')
    content = json.loads((tmp_path / 'out' / 'config.json').read_text())
    assert (content['scaling_factor'], content['shift_factor']) == (2, 0.25)
    with pytest.raises(SystemExit, match='--scale: the file has a mean and a scale for each channel'):
        run_convert(tmp_path / 'own.pt', tmp_path / 'own', '--to', 'diffusers', '--scale', '2')


def test_a_shift_is_given_beside_the_scale_or_alone(ldm_file, tmp_path):
    def written(*options):
        run_convert(*options, '--to', 'eqzoo', '--overwrite')
        state = load_file(options[1])
        return [state[f'autoencoder.normalization.{key}'].tolist() for key in ('scale', 'shift')]

    out = tmp_path / 'out.safetensors'
    with pytest.raises(SystemExit, match=r'--shift 0\.5: the file states no scale; .*give --scale FLOAT'):
        run_convert(ldm_file, out, '--to', 'eqzoo', '--shift', '0.5')
    assert written(ldm_file, out, '--scale', '2', '--shift', '-0.5') == [[2.0] * 4, [-0.5] * 4]
    assert written(out, tmp_path / 'b.safetensors', '--shift', '0.25') == [[2.0] * 4, [0.25] * 4]
    torch.save(KLAutoencoder(**WIDE, scale=0.5, shift=(0.0, 1.0, 2.0, 3.0)).state_dict(), tmp_path / 'own.pt')
    assert written(tmp_path / 'own.pt', out, '--scale', '2') == [[2.0] * 4, [0.0, 1.0, 2.0, 3.0]]
    with pytest.raises(SystemExit, match='--shift: the file has a mean and a scale for each channel'):
        run_convert(tmp_path / 'own.pt', out, '--to', 'eqzoo', '--shift', '2', '--overwrite')


def test_a_shift_that_published_autoencoders_have_is_not_forgotten(ldm_file, tmp_path, capsys):
    """FLUX.1 and SD3 have one network, and a shift."""
    configs = [f'configs/_base_/autoencoders/{name}_vae.py' for name in ('flux1', 'sd3')]
    file = AutoencoderFile({}, plain_config(dict(type='KLAutoencoder', latent_channels=16, quant_conv=False)))
    with pytest.raises(ValueError, match=f'of this network: {", ".join(configs)}'):
        export(file, tmp_path / 'out', to='diffusers')
    (note,) = set_scale_and_shift(file, 0.3611, None)
    assert note.startswith('the shift is 0; published autoencoders of this network have one: ')
    assert f'0.1159 ({configs[0]}), 0.0609 ({configs[1]})' in note
    file.state = {}
    assert set_scale_and_shift(file, 0.3611, 0.0) == []
    run_convert(ldm_file, tmp_path / 'out.safetensors', '--to', 'ldm', '--scale', '0.18215')
    assert 'note' not in capsys.readouterr().out


def test_overwriting_replaces_only_what_a_conversion_wrote(ldm_file, tmp_path):
    out = tmp_path / 'out'
    run_convert(ldm_file, out, '--to', 'diffusers', '--scale', '0.5')
    run_convert(ldm_file, out, '--to', 'diffusers', '--scale', '0.25', '--overwrite')
    assert json.loads((out / 'config.json').read_text())['scaling_factor'] == 0.25
    inside = out / 'model.ckpt'
    inside.write_bytes(ldm_file.read_bytes())
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    for source, destination, to, message in (
        (ldm_file, out, 'diffusers', r'also holds model\.ckpt, which no conversion wrote'),
        (inside, out, 'diffusers', r'is or contains the source'),
        (inside, inside, 'ldm', r'is or contains the source'),
        (out / 'config.json', out, 'diffusers', r'is or contains the source'),
    ):
        with pytest.raises(SystemExit, match=message):
            run_convert(source, destination, '--to', to, '--scale', '0.5', '--overwrite')
    with pytest.raises(ValueError, match=r'also holds model\.ckpt'):
        write_normalization(out, torch.zeros(4), torch.ones(4))
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


@pytest.mark.parametrize(('to', 'name'), [('diffusers', 'out'), ('ldm', 'out.safetensors'), ('eqzoo', 'out.pth')])
def test_a_full_disk_is_one_message_and_leaves_nothing(to, name, ldm_file, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(SystemExit, match=rf'^error: {tmp_path}/{name}: cannot be written \(File too large\)'):
            run_convert(ldm_file, tmp_path / name, '--to', to, '--scale', '0.5')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [file.name for file in tmp_path.iterdir()] == ['model.ckpt']


def test_exports_have_ordinary_modes_and_the_same_bytes(ldm_file, tmp_path):
    for name in ('a', 'b'):
        run_convert(ldm_file, tmp_path / name, '--to', 'diffusers', '--scale', '0.5')
        run_convert(ldm_file, tmp_path / f'{name}.safetensors', '--to', 'ldm')
        run_convert(ldm_file, tmp_path / f'{name}.pth', '--to', 'eqzoo')
    assert (tmp_path / 'a.pth').read_bytes() == (tmp_path / 'b.pth').read_bytes()
    (tmp_path / 'touched').touch()
    ordinary = (tmp_path / 'touched').stat().st_mode
    assert {file.stat().st_mode for file in tmp_path.rglob('*') if file.is_file()} == {ordinary}
