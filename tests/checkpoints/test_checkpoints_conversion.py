"""Conversion between formats: every tensor comes back to the bit, and diffusers gives the same outputs."""

import dataclasses
import json

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel
from safetensors.torch import load_file, save_file

from eqzoo.autoencoders import DiffusersAutoencoder
from eqzoo.checkpoints.autoencoder import AutoencoderFile, complete_config, read_autoencoder, set_normalization
from eqzoo.checkpoints.config import plain_config
from eqzoo.checkpoints.keys import to_ldm
from eqzoo.checkpoints.write import export
from eqzoo.loading import load_autoencoder
from eqzoo.losses.adversarial import PatchGAN
from eqzoo.registry import build

KL = dict(type='KLAutoencoder', layers_per_block=1, norm_num_groups=4)
CONFIGS = {
    'KL f8': dict(KL, block_out_channels=(8, 8, 16, 16)),
    'KL f16 with attention': dict(
        KL, latent_channels=16, block_out_channels=(8, 8, 8, 16, 16), attention_levels=(3, 4), layers_per_block=2
    ),
    'KL without 1x1 convolutions': dict(KL, latent_channels=16, block_out_channels=(8, 8, 16), quant_conv=False),
    'KL of other channels': dict(KL, latent_channels=4, feature_channels=6, block_out_channels=(8, 8, 16)),
    'VQ': dict(
        type='VQAutoencoder',
        latent_channels=4,
        num_codes=32,
        block_out_channels=(8, 16),
        feature_channels=8,
        layers_per_block=1,
        attention_levels=(1,),
        norm_num_groups=4,
    ),
    'tiny': dict(type='TinyAutoencoder', num_blocks=(1, 2), width=8),
    'pooled tiny': dict(type='TinyAutoencoder', num_blocks=(1, 2), width=8, pooled=True),
}
NOT_IN_DIFFUSERS = ('pooled tiny', 'KL of other channels')
NORMALIZATIONS = {
    'nothing stated': {},
    'scale': dict(scale=0.13025),
    'scale and shift': dict(scale=0.3611, shift=0.1159),
    'per-channel': 'per-channel',
}
CHAINS = (
    ('diffusers',),
    ('ldm.ckpt',),
    ('ldm.safetensors',),
    ('eqzoo.pth',),
    ('eqzoo.safetensors',),
    ('eqzoo.pth', 'ldm.ckpt', 'diffusers', 'eqzoo.safetensors'),
    ('diffusers', 'ldm.safetensors', 'eqzoo.pth', 'diffusers'),
)


def random_like(state, seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(value.shape, generator=generator) if value.is_floating_point() else value + seed
        for key, value in state.items()
    }


def stored_for(name, normalization='scale', *, more=False):
    """An autoencoder as if read; `more`: with its average, discriminator and log-variance."""
    config = plain_config(CONFIGS[name])
    state = {k: v for k, v in build(config).state_dict().items() if not k.startswith('normalization.')}
    stored = AutoencoderFile(random_like(state, 1), config)
    if more:
        stored.trained = random_like(state, 2)
        stored.discriminator = random_like(PatchGAN(1, 8).state_dict(), 3)
        stored.log_variance = torch.tensor(0.1)
    arguments = NORMALIZATIONS[normalization]
    if arguments == 'per-channel':
        channels = config['latent_channels']
        # 1 / (1 / x) is another float32 for many of these
        arguments = dict(mean=[0.1 * i for i in range(channels)], std=[1 + i / 7 for i in range(channels)])
    if arguments:
        set_normalization(stored, arguments)
    return stored


def write(stored, folder, kind):
    path = folder / f'{len(list(folder.iterdir()))}_{kind}'
    export(stored, path, to=kind.split('.')[0])
    return path


def assert_same(left, right):
    for field in dataclasses.fields(AutoencoderFile):
        expected, found = getattr(left, field.name), getattr(right, field.name)
        if isinstance(expected, torch.Tensor):
            expected, found = {'': expected}, {'': found}
        is_state = isinstance(expected, dict) and any(isinstance(each, torch.Tensor) for each in expected.values())
        if not is_state:
            assert found == expected, field.name
            continue
        assert set(found) == set(expected), field.name
        for key, value in expected.items():
            assert found[key].dtype == value.dtype, key
            assert torch.equal(found[key], value), key


def combinations():
    for name in CONFIGS:
        for normalization in ('nothing stated', 'scale and shift', 'per-channel'):
            for chain in CHAINS:
                refused = name in NOT_IN_DIFFUSERS or (name.startswith('KL') and normalization == 'nothing stated')
                if not (refused and 'diffusers' in chain):
                    yield pytest.param(name, normalization, chain, id=f'{name}, {normalization}: {" -> ".join(chain)}')


@pytest.mark.parametrize(('name', 'normalization', 'chain'), list(combinations()))
@pytest.mark.parametrize('more', [False, True], ids=['alone', 'with average and discriminator'])
def test_round_trips_are_exact(tmp_path, name, normalization, chain, more):
    original = stored_for(name, normalization, more=more)
    stored = original
    for kind in chain:
        # what diffusers' config.json says beyond eqzoo's config has defaults, which are no loss
        stored = dataclasses.replace(read_autoencoder(write(stored, tmp_path, kind)), diffusers_fields={})
    # strict programs expect no more names in safetensors than LDM has
    assert_same(dataclasses.replace(original, trained=None) if 'ldm.safetensors' in chain else original, stored)


@pytest.mark.parametrize('name', ['KL f8', 'VQ', 'tiny'])
def test_an_ldm_export_has_the_names_of_ldm_only(tmp_path, name):
    """`load_state_dict(strict=True)` of other programs; eqzoo's entries are in the metadata."""
    stored = stored_for(name, 'per-channel', more=True)
    stored.discriminator, stored.log_variance = {}, None
    path = tmp_path / 'out.safetensors'
    notes = export(stored, path, to='ldm')
    assert set(load_file(path)) == set(to_ldm(stored.network))
    assert [note for note in notes if 'no place for the trained weights beside their average' in note]
    assert_same(dataclasses.replace(stored, trained=None), read_autoencoder(path))
    content = load_file(path)
    bad = json.dumps(dict(normalization=dict(scale=dict(dtype='torch.float32', values=['x']))))
    save_file(content, path, metadata=dict(eqzoo=bad))
    with pytest.raises(ValueError, match=r'normalisation in the metadata of .* is damaged'):
        read_autoencoder(path)


@pytest.mark.parametrize('chain', [('ldm.ckpt',), ('ldm.safetensors',), ('eqzoo.safetensors',)])
def test_half_precision_stays(tmp_path, chain):
    original = stored_for('KL f16 with attention', 'nothing stated')
    original.state = {key: value.half() for key, value in original.state.items()}
    assert_same(original, read_autoencoder(write(original, tmp_path, *chain)))


def test_half_precision_stays_in_diffusers(tmp_path):
    original = stored_for('KL f8')
    original.state = {k: v if k.startswith('normalization') else v.half() for k, v in original.state.items()}
    folder = write(original, tmp_path, 'diffusers')
    assert_same(original, dataclasses.replace(read_autoencoder(folder), diffusers_fields={}))
    opened = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float16)
    assert torch.equal(opened.decoder.conv_in.weight, original.state['decoder.conv_in.weight'])


@pytest.mark.parametrize('name', CONFIGS)
def test_written_files_load(tmp_path, name):
    stored = stored_for(name, 'per-channel', more=True)
    kinds = ['ldm.ckpt', 'eqzoo.safetensors'] + ['diffusers'] * (name not in NOT_IN_DIFFUSERS)
    for kind in kinds:
        loaded = load_autoencoder(write(stored, tmp_path, kind))
        assert not loaded.training
        assert_same(stored, dataclasses.replace(stored, state=loaded.state_dict()))


IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(5)) * 2 - 1


# Within a file these are the same operations on the same numbers: equal to the bit.
@pytest.mark.parametrize('name', ['KL f8', 'KL f16 with attention', 'KL without 1x1 convolutions'])
@torch.no_grad()
def test_diffusers_opens_a_kl_export_with_the_same_outputs(tmp_path, name):
    stored = tame(stored_for(name, more=True))
    folder = write(stored, tmp_path, 'diffusers')
    opened, ours = AutoencoderKL.from_pretrained(folder).eval(), load_autoencoder(folder)
    posterior, expected = opened.encode(IMAGES).latent_dist, ours.encode(IMAGES)
    assert torch.equal(posterior.mean, expected.mean)
    assert torch.equal(posterior.std, expected.std)
    assert torch.equal(opened.decode(expected.mean).sample, ours.decode(expected.mean))
    assert torch.equal(
        (posterior.mean - opened.config.shift_factor) * opened.config.scaling_factor, ours.latents(IMAGES)
    )


@torch.no_grad()
def test_diffusers_opens_a_vq_export_with_the_same_outputs(tmp_path):
    folder = write(tame(stored_for('VQ')), tmp_path, 'diffusers')
    opened, ours = VQModel.from_pretrained(folder).eval(), load_autoencoder(folder)
    features = ours.encode(IMAGES).mean
    assert torch.equal(opened.encode(IMAGES).latents, features)
    assert ours.tokens(IMAGES).unique().numel() > 1
    # the nearest code is found by cdist there and by an expanded square here: the same codes, so the same images
    assert torch.equal(opened.decode(features).sample, ours.decode(features))


@torch.no_grad()
def test_diffusers_opens_a_tiny_export_with_the_same_outputs(tmp_path):
    folder = write(tame(stored_for('tiny')), tmp_path, 'diffusers')
    opened, ours = AutoencoderTiny.from_pretrained(folder).eval(), load_autoencoder(folder)
    latents = ours.encode(IMAGES).mean
    assert torch.equal(opened.encode(IMAGES).latents, latents)
    assert torch.equal(opened.decode(latents).sample, ours.decode(latents))


def tame(stored):
    """Weights of unit variance blow up: take those of an initialisation, moved a little."""
    torch.manual_seed(0)
    model = build(stored.config)
    start = {k: v for k, v in model.state_dict().items() if not k.startswith('normalization.')}
    moved = {key: value + 0.05 * stored.state[key] for key, value in start.items()}
    return dataclasses.replace(stored, state={**stored.state, **moved})


def config_json(folder):
    return json.loads((folder / 'config.json').read_text())


def test_config_json_says_the_network_and_its_scale(tmp_path):
    fields = config_json(write(stored_for('KL f16 with attention', 'scale and shift'), tmp_path, 'diffusers'))
    version = fields.pop('_diffusers_version')
    assert version
    assert fields == dict(
        _class_name='AutoencoderKL',
        act_fn='silu',
        block_out_channels=[8, 8, 8, 16, 16],
        down_block_types=['DownEncoderBlock2D'] * 3 + ['AttnDownEncoderBlock2D'] * 2,
        up_block_types=['AttnUpDecoderBlock2D'] * 2 + ['UpDecoderBlock2D'] * 3,
        force_upcast=True,
        in_channels=3,
        out_channels=3,
        latent_channels=16,
        latents_mean=None,
        latents_std=None,
        layers_per_block=2,
        mid_block_add_attention=True,
        norm_num_groups=4,
        sample_size=256,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=True,
        use_post_quant_conv=True,
    )


def test_per_channel_statistics_and_a_factor_are_never_both(tmp_path):
    fields = config_json(write(stored_for('KL f8', 'per-channel'), tmp_path, 'diffusers'))
    assert (fields['scaling_factor'], fields['shift_factor']) == (1.0, None)
    assert fields['latents_mean'] == [0.0, 0.1, 0.2, 0.3]
    assert fields['latents_std'] == pytest.approx([1, 8 / 7, 9 / 7, 10 / 7], rel=1e-6)


@pytest.mark.parametrize(('name', 'kind'), [('VQ', 'shift or per-channel'), ('tiny', 'per-channel')])
def test_missing_fields_of_diffusers_are_reported(tmp_path, name, kind):
    notes = export(stored_for(name, 'per-channel'), tmp_path / 'out', to='diffusers')
    opener = config_json(tmp_path / 'out')['_class_name']
    assert len(notes) == 1
    assert notes[0].startswith(f"diffusers' {opener} has no field for {kind} statistics: kept in eqzoo.safetensors")
    assert config_json(tmp_path / 'out')['scaling_factor'] == 1.0


def test_another_beta_is_kept_and_reported(tmp_path):
    stored = stored_for('VQ')
    stored.config |= dict(beta=0.5)
    assert 'beta 0.25 on the codebook term' in export(stored, tmp_path / 'out', to='diffusers')[0]
    assert read_autoencoder(tmp_path / 'out').config['beta'] == 0.5


def test_the_plain_names_of_an_ldm_export_hold_the_average(tmp_path):
    stored = stored_for('KL f16 with attention', more=True)
    content = torch.load(write(stored, tmp_path, 'ldm.ckpt'), weights_only=True)
    state = content['state_dict']
    assert torch.equal(state['encoder.conv_in.weight'], stored.state['encoder.conv_in.weight'])
    weight = stored.state['decoder.up_blocks.0.attentions.1.to_q.weight']
    assert torch.equal(state['decoder.up.4.attn.1.q.weight'], weight[:, :, None, None])
    assert torch.equal(state['loss.discriminator.main.0.weight'], stored.discriminator['network.main.0.weight'])
    assert torch.equal(state['loss.logvar'], stored.log_variance)
    names = {key.split('.')[0] for key in state}
    assert names == {'encoder', 'decoder', 'quant_conv', 'post_quant_conv', 'loss'}


def test_fields_of_config_json_that_eqzoo_does_not_use_come_back(tmp_path):
    stored = stored_for('KL f8')
    stored.diffusers_fields = dict(sample_size=1024, force_upcast=False)
    for kind in ('diffusers', 'eqzoo.pth', 'ldm.ckpt', 'eqzoo.safetensors', 'diffusers'):
        path = write(stored, tmp_path, kind)
        stored = read_autoencoder(path)
    fields = config_json(path)
    assert (fields['sample_size'], fields['force_upcast']) == (1024, False)


def test_an_unstated_scale_is_not_written_for_diffusers(tmp_path):
    with pytest.raises(ValueError, match=r'diffusers would assume 0\.18215; .* give --scale FLOAT, or --config'):
        export(stored_for('KL f8', 'nothing stated'), tmp_path / 'out', to='diffusers')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('name', 'change', 'message'),
    [
        ('pooled tiny', {}, r'pooled blocks \(TAEF2\) are unknown to diffusers'),
        ('KL of other channels', {}, r"feature_channels \(LDM's z_channels other than embed_dim\) are unknown"),
        ('tiny', dict(type='MyAutoencoder'), 'there is no MyAutoencoder in diffusers'),
    ],
)
def test_networks_that_diffusers_lacks_are_refused(tmp_path, name, change, message):
    stored = stored_for(name)
    stored.config |= change
    with pytest.raises(ValueError, match=f'{message}.*use --to eqzoo'):
        export(stored, tmp_path / 'out', to='diffusers')
    assert list(tmp_path.iterdir()) == []


def test_an_ldm_export_with_reflection_says_that_ldm_has_zeros(tmp_path):
    stored = stored_for('KL f8')
    stored.config |= dict(padding_mode='reflect')
    notes = export(stored, tmp_path / 'out.ckpt', to='ldm')
    assert notes == ["LDM's code pads with zeros, not by 'reflect': outputs differ there"]
    assert_same(stored, read_autoencoder(tmp_path / 'out.ckpt'))


def test_destinations(tmp_path):
    stored = stored_for('tiny')
    with pytest.raises(ValueError, match=r"--to diffusers: got '.*out\.ckpt'; expected a folder"):
        export(stored, tmp_path / 'out.ckpt', to='diffusers')
    with pytest.raises(ValueError, match=r"--to ldm: got '.*out'; expected a file ending in \.ckpt, "):
        export(stored, tmp_path / 'out', to='ldm')
    for kind in ('diffusers', 'eqzoo.pth'):
        path = write(stored, tmp_path, kind)
        with pytest.raises(ValueError, match=rf'{path.name}. already exists; .* --overwrite'):
            export(stored, path, to=kind.split('.')[0])
        export(stored_for('tiny', 'scale and shift'), path, to=kind.split('.')[0], overwrite=True)
        assert read_autoencoder(path).normalization['shift'].tolist() == pytest.approx([0.1159] * 4)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_write_leaves_the_old_content(tmp_path, monkeypatch):
    stored = stored_for('tiny')
    paths = [write(stored, tmp_path, kind) for kind in ('diffusers', 'eqzoo.safetensors')]
    monkeypatch.setattr('eqzoo.checkpoints.write.save_file', lambda *_, **__: (_ for _ in ()).throw(OSError('full')))
    for path, to in zip(paths, ('diffusers', 'eqzoo'), strict=True):
        with pytest.raises(OSError, match='full'):
            export(stored, path, to=to, overwrite=True)
        assert_same(stored, dataclasses.replace(read_autoencoder(path), diffusers_fields={}))
    assert len(list(tmp_path.iterdir())) == 2


class TestFolders:
    @pytest.fixture
    def folder(self, tmp_path):
        return write(stored_for('KL f8', 'scale and shift'), tmp_path, 'diffusers')

    def edit(self, folder, **fields):
        (folder / 'eqzoo.safetensors').unlink()
        (folder / 'config.json').write_text(json.dumps({**config_json(folder), **fields}))

    def test_one_of_diffusers_brings_its_normalisation(self, folder):
        self.edit(folder)
        stored = read_autoencoder(folder)
        assert_same(stored_for('KL f8', 'scale and shift'), dataclasses.replace(stored, diffusers_fields={}))
        assert stored.diffusers_fields == dict(sample_size=256, force_upcast=True)
        model = build(dict(CONFIGS['KL f8'], scale=3.0, weights=folder))
        assert model.normalization.scale.tolist() == pytest.approx([0.3611] * 4)

    def test_where_config_json_is_silent_diffusers_default_holds(self, folder):
        """As in sd-vae-ft-mse, whose config.json has no scaling_factor."""
        self.edit(folder)
        fields = config_json(folder)
        for key in ('scaling_factor', 'shift_factor', 'latents_mean', 'use_quant_conv', 'force_upcast'):
            del fields[key]
        (folder / 'config.json').write_text(json.dumps(fields))
        normalization = read_autoencoder(folder).normalization
        assert normalization['scale'].tolist() == pytest.approx([0.18215] * 4)
        assert normalization['shift'].tolist() == [0.0] * 4

    @pytest.mark.parametrize(
        ('mean', 'std', 'factor', 'shift', 'applied'),
        [
            ([-1.6574, 1.886, -1.383, 2.5155], [8.4927, 5.9022, 6.5498, 5.2299], 0.5, None, 0.5),
            ([-3.866, -1.3354, 0.8354, 0.9099], [10.0365, 6.8484, 7.2138, 5.5913], 0.1275, -0.8640, 1.0),
            ([1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 8.0, 16.0], 1.0, None, 1.0),
            ([1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 8.0, 16.0], None, None, 1.0),
        ],
        ids=[
            'Playground 2.5',
            'EQ-SDXL-VAE, a factor of all channels, a shift of the wrong sign',
            'eqzoo',
            'no factor',
        ],
    )
    def test_statistics_and_a_factor(self, folder, mean, std, factor, shift, applied):
        """As diffusers' pipeline of SDXL does: (z - mean) * factor / std."""
        self.edit(folder, latents_mean=mean, latents_std=std, scaling_factor=factor, shift_factor=shift)
        normalization = read_autoencoder(folder).normalization
        assert torch.equal(normalization['shift'], torch.tensor(mean))
        assert torch.equal(normalization['scale'], torch.tensor([1 / (each / applied) for each in std]))

    def test_torch_weights_and_old_attention_names(self, folder):
        self.edit(folder)
        expected = read_autoencoder(folder)
        path = folder / 'diffusion_pytorch_model.safetensors'
        state, old = load_file(path), {}
        for key, value in state.items():
            for word, name in [('to_q', 'query'), ('to_k', 'key'), ('to_v', 'value'), ('to_out.0', 'proj_attn')]:
                key = key.replace(word, name)
            old[key] = value
        assert any('proj_attn' in key for key in old)
        torch.save(old, path.with_suffix('.bin'))
        path.unlink()
        assert_same(expected, read_autoencoder(folder))

    @pytest.mark.parametrize('variant', [None, 'fp16', 'bf16', 'non_ema'])
    @pytest.mark.parametrize('size', ['10GB', '20KB'], ids=['one file', 'shards'])
    @pytest.mark.parametrize('safe', [True, False], ids=['safetensors', 'bin'])
    def test_shards_and_variants_of_diffusers(self, folder, tmp_path, variant, size, safe):
        opened = AutoencoderKL.from_pretrained(folder)
        opened.save_pretrained(tmp_path / 'x', variant=variant, max_shard_size=size, safe_serialization=safe)
        found = read_autoencoder(tmp_path / 'x')
        assert len(list((tmp_path / 'x').iterdir())) == 2 or size == '20KB'
        for name, value in stored_for('KL f8', 'scale and shift').network.items():
            assert torch.equal(found.state[name], value), name

    def test_full_precision_goes_before_variants(self, folder):
        self.edit(folder)
        path = folder / 'diffusion_pytorch_model.safetensors'
        save_file({key: value + 1 for key, value in load_file(path).items()}, path.with_suffix('.fp16.safetensors'))
        assert_same(
            stored_for('KL f8', 'scale and shift'), dataclasses.replace(read_autoencoder(folder), diffusers_fields={})
        )

    def test_shards_that_are_missing_are_named(self, folder, tmp_path):
        AutoencoderKL.from_pretrained(folder).save_pretrained(tmp_path / 'x', max_shard_size='20KB')
        index = tmp_path / 'x' / 'diffusion_pytorch_model.safetensors.index.json'
        content = json.loads(index.read_text())
        content['weight_map']['decoder.more'] = next(iter(content['weight_map'].values()))
        index.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r'the shards of .* lack decoder\.more; fetch them again'):
            read_autoencoder(tmp_path / 'x')
        content['weight_map']['decoder.more'] = 'gone.safetensors'
        index.write_text(json.dumps(content))
        with pytest.raises(FileNotFoundError, match=r'gone\.safetensors'):
            read_autoencoder(tmp_path / 'x')
        content['weight_map']['decoder.more'] = '../x/config.json'
        index.write_text(json.dumps(content))
        with pytest.raises(ValueError, match='is no index of shards'):
            read_autoencoder(tmp_path / 'x')

    @pytest.mark.parametrize('content', ['[]', '"x"', '3', 'null', '[' * 100_000])
    def test_a_config_that_is_no_object_is_refused(self, folder, content):
        (folder / 'config.json').write_text(content)
        with pytest.raises(ValueError, match=r'config\.json. is (no JSON object|not JSON)'):
            read_autoencoder(folder)

    @pytest.mark.parametrize(
        'fields',
        [
            dict(latent_channels=10**9),
            dict(latent_channels='4'),
            dict(down_block_types=[1, 2]),
            dict(down_block_types=5),
            dict(block_out_channels=5),
        ],
    )
    def test_values_of_other_types_are_one_message(self, folder, fields):
        self.edit(folder, **fields)
        with pytest.raises(ValueError, match=r'config\.json: (a value is of another type|got)'):
            read_autoencoder(folder)

    def test_changed_files_do_not_get_an_old_companion(self, folder):
        path = folder / 'diffusion_pytorch_model.safetensors'
        save_file({key: value + 1 for key, value in load_file(path).items()}, path)
        with pytest.raises(ValueError, match=r'was written for other files .* delete eqzoo\.safetensors'):
            read_autoencoder(folder)

    def test_incomplete_folders(self, folder):
        self.edit(folder)
        (folder / 'diffusion_pytorch_model.safetensors').unlink()
        with pytest.raises(FileNotFoundError, match='has no weights; expected diffusion_pytorch_model'):
            read_autoencoder(folder)
        (folder / 'config.json').unlink()
        (folder / 'vae').mkdir()
        with pytest.raises(FileNotFoundError, match=r"has no config\.json; .*; give its folder 'vae'"):
            read_autoencoder(folder)
        (folder / 'config.json').write_text('{')
        with pytest.raises(ValueError, match='config.json. is not JSON'):
            read_autoencoder(folder)

    @pytest.mark.parametrize(
        ('name', 'fields', 'message'),
        [
            (
                'KL f8',
                dict(_class_name='UNet2DModel'),
                "got _class_name 'UNet2DModel'; expected AutoencoderKL, VQModel",
            ),
            ('VQ', dict(act_fn='relu'), "got act_fn 'relu'; expected 'silu'"),
            ('VQ', dict(up_block_types=['UpDecoderBlock2D'] * 2), 'got up_block_types'),
            ('tiny', dict(upsample_fn='bilinear'), "got upsample_fn 'bilinear'; expected 'nearest'"),
        ],
    )
    def test_other_networks_are_refused(self, tmp_path, name, fields, message):
        folder = write(stored_for(name, 'scale and shift'), tmp_path, 'diffusers')
        self.edit(folder, **fields)
        with pytest.raises(ValueError, match=f'config.json: {message}'):
            read_autoencoder(folder)

    @pytest.mark.parametrize(
        'fields',
        [
            dict(mid_block_add_attention=False),
            dict(use_post_quant_conv=False),
            dict(up_block_types=['UpDecoderBlock2D'] * 3 + ['AttnUpDecoderBlock2D']),
            dict(act_fn='relu'),
        ],
        ids=str,
    )
    @torch.no_grad()
    def test_variants_of_diffusers_kl_are_wrapped(self, tmp_path, fields):
        """Also those that eqzoo wrote, with its companion and without it."""
        torch.manual_seed(0)
        blocks = dict(down_block_types=['DownEncoderBlock2D'] * 4, up_block_types=['UpDecoderBlock2D'] * 4)
        shape = dict(block_out_channels=[8, 8, 16, 16], layers_per_block=1, norm_num_groups=4, shift_factor=0.5)
        network = AutoencoderKL(**{**shape, **blocks, **fields}).eval()
        network.save_pretrained(tmp_path / 'in')
        stored = complete_config(read_autoencoder(tmp_path / 'in'), 'in')
        export(stored, tmp_path / 'out', to='diffusers')
        export(stored, tmp_path / 'bare', to='diffusers')
        (tmp_path / 'bare' / 'eqzoo.safetensors').unlink()
        latents = network.encode(IMAGES).latent_dist.mean
        for name in ('in', 'out', 'bare'):
            loaded = load_autoencoder(tmp_path / name)
            assert type(loaded) is DiffusersAutoencoder
            assert torch.equal(loaded.latents(IMAGES), (latents - 0.5) * torch.tensor(0.18215))
            assert torch.equal(loaded.decode(latents), network.decode(latents).sample)

    @pytest.mark.parametrize(
        ('name', 'fields'),
        [('KL f8', dict(mid_block_add_attention=False)), ('tiny', {})],
    )
    def test_absurd_numbers_of_channels_are_refused(self, tmp_path, name, fields):
        folder = write(stored_for(name), tmp_path, 'diffusers')
        self.edit(folder, **fields, latent_channels=10**9)
        with pytest.raises(ValueError, match='got 1000000000 latent channels; expected 1 to 16384'):
            read_autoencoder(folder)
