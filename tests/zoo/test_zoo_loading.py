"""`eqzoo.load`: autoencoders and generators by name, file, folder and URL; and `tools/download.py`."""

import pytest
import torch
from safetensors.torch import save

import eqzoo
from eqzoo.autoencoders import TinyAutoencoder
from eqzoo.checkpoints.autoencoder import AutoencoderFile
from eqzoo.checkpoints.config import plain_config
from eqzoo.checkpoints.keys import to_ldm
from eqzoo.checkpoints.write import export
from eqzoo.commands.cli import run
from eqzoo.commands.download import download
from eqzoo.loading import autoencoder_config, load_autoencoder
from eqzoo.registry import build

CONFIG = "autoencoder = dict(type='TinyAutoencoder', num_blocks=(1, 1), width=8, scale=0.5, weights='eqzoo://tiny')\n"


@pytest.fixture
def tiny(site, zoo, monkeypatch):
    """A model in an index of its own, its file on the server."""
    torch.manual_seed(1)
    autoencoder = TinyAutoencoder(num_blocks=(1, 1), width=8)
    state = {key: value for key, value in autoencoder.state_dict().items() if not key.startswith('normalization.')}
    content = save(state)
    url = site.add('/tiny.safetensors', content)
    folder = zoo(dict(Name='tiny', Weights=url, Bytes=len(content), Config='configs/tiny.py'))
    (folder / 'tiny.py').write_text(CONFIG)
    return autoencoder


def same(left, right):
    return torch.equal(left.encoder.layers[0].weight, right.encoder.layers[0].weight)


def test_two_lines_give_a_ready_autoencoder(tiny, site):
    autoencoder = eqzoo.load('tiny')
    assert same(autoencoder, tiny)
    assert not autoencoder.training
    assert torch.equal(autoencoder.normalization.scale, torch.full((4,), 0.5))
    eqzoo.load('tiny')
    assert len(site.requests) == 1


def test_files_and_urls_load_too(tiny, site, tmp_path):
    path = tmp_path / 'own.pth'
    torch.save(tiny.state_dict(), path)
    assert same(eqzoo.load(path), tiny)
    assert same(eqzoo.load(str(path)), tiny)
    other = site.add('/other/model.safetensors', site.pages['/tiny.safetensors'].content)
    assert same(eqzoo.load(other), tiny)


def test_a_file_of_the_hub_loads(tiny, site, monkeypatch):
    site.add('/org/repo/resolve/main/vae/model.safetensors', site.pages['/tiny.safetensors'].content)
    monkeypatch.setenv('HF_ENDPOINT', site.url)
    assert same(eqzoo.load('hf://org/repo/vae/model.safetensors'), tiny)


def test_a_url_of_the_zoo_is_its_name(tiny):
    assert torch.equal(eqzoo.load('eqzoo://tiny').normalization.scale, torch.full((4,), 0.5))


def test_the_normalisation_of_a_file_goes_before_the_configs(tiny, tmp_path):
    torch.save(tiny.state_dict(), tmp_path / 'own.pth')
    config = dict(type='TinyAutoencoder', num_blocks=(1, 1), width=8, scale=0.5)
    assert eqzoo.load(tmp_path / 'own.pth', config=config).normalization.scale.tolist() == [1.0] * 4


def test_folders_load_too(tiny, tmp_path):
    state = {key: value for key, value in tiny.state_dict().items() if not key.startswith('normalization.')}
    config = plain_config(dict(type='TinyAutoencoder', num_blocks=(1, 1), width=8))
    export(AutoencoderFile(state, config), tmp_path / 'out', to='diffusers')
    assert same(eqzoo.load(tmp_path / 'out'), tiny)
    run_folder = tmp_path / 'run'
    run_folder.mkdir()
    for step, factor in ((9, 0), (10, 1), (8, 0)):  # by number, not by name
        weights = {f'autoencoder.{key}': factor * value for key, value in tiny.state_dict().items()}
        torch.save(dict(state_dict=weights, autoencoder=config), run_folder / f'iter_{step}.pth')
    assert same(eqzoo.load(str(run_folder)), tiny)


def test_a_pair_of_files_loads(tiny, tmp_path):
    numbered = to_ldm({key: value for key, value in tiny.state_dict().items() if not key.startswith('normalization.')})
    files = []
    for network in ('encoder', 'decoder'):
        half = {key.removeprefix(f'{network}.'): value for key, value in numbered.items() if key.startswith(network)}
        files.append(str(tmp_path / f'{network}.pth'))
        torch.save(half, files[-1])
    assert same(eqzoo.load(','.join(files)), tiny)
    assert same(eqzoo.load(files), tiny)


NETWORK = dict(type='DiffusionTransformer', size=(1, 32, 2), patch_size=2, latent_size=8, num_classes=10)
GENERATOR = dict(type='DiT', network=NETWORK, process=dict(type='GaussianDiffusion'))


@pytest.fixture
def dit():
    """A generator whose weights are unlike any initialisation."""
    torch.manual_seed(1)
    generator = build(GENERATOR)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.normal_()
    return generator


def assert_generator(found, expected):
    assert type(found) is type(expected)
    assert not found.training
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


class TestGenerators:
    def test_by_name(self, site, zoo, dit):
        url = site.add('/dit.safetensors', save(dit.network.state_dict()))
        folder = zoo(dict(Name='dit', Weights=url, Config='configs/dit.py'))
        config = {**GENERATOR, 'network': {**NETWORK, 'weights': 'eqzoo://dit'}}
        (folder / 'dit.py').write_text(f'model = dict(generator={config}, autoencoder=dict(type="KLAutoencoder"))\n')
        with pytest.raises(ValueError, match=r'dit is a generator; .*tools/sample.py configs/dit.py'):
            load_autoencoder('dit')
        assert not site.requests
        assert_generator(eqzoo.load('dit'), dit)

    def test_from_a_checkpoint_with_its_average(self, tmp_path, dit):
        path = tmp_path / 'iter_1.pth'
        trained = {f'generator.{key}': torch.zeros_like(value) for key, value in dit.state_dict().items()}
        config = {**plain_config(GENERATOR), 'network': plain_config(NETWORK)}
        torch.save(dict(state_dict=trained, ema_state_dict=dit.state_dict(), generator=config), path)
        assert_generator(eqzoo.load(path), dit)
        assert_generator(eqzoo.load(tmp_path), dit)
        with pytest.raises(ValueError, match=r'iter_1.pth is a generator; .*tools/sample.py CONFIG .*iter_1.pth'):
            load_autoencoder(path)

    def test_a_published_file_needs_a_config(self, tmp_path, dit):
        torch.save(dict(ema=dit.network.state_dict()), tmp_path / 'dit.pt')
        with pytest.raises(ValueError, match=r"dit.pt' holds a generator of size \(1 blocks of 32\), .*; give config="):
            eqzoo.load(tmp_path / 'dit.pt')
        assert_generator(eqzoo.load(tmp_path / 'dit.pt', config=GENERATOR), dit)
        (tmp_path / 'dit.py').write_text(f'model = dict(generator={GENERATOR})\n')
        assert_generator(eqzoo.load(tmp_path / 'dit.pt', config=tmp_path / 'dit.py'), dit)
        wider = {**GENERATOR, 'network': {**NETWORK, 'size': (1, 64, 2)}}
        with pytest.raises(ValueError, match=r'\(1 blocks of 32\).* \(1 blocks of 64\)'):
            eqzoo.load(tmp_path / 'dit.pt', config=wider)

    def test_of_a_config_with_both_the_file_decides(self, tmp_path, dit, tiny):
        """A generator's config also has its autoencoder."""
        torch.save(dit.network.state_dict(), tmp_path / 'dit.pt')
        torch.save(tiny.state_dict(), tmp_path / 'tiny.pth')
        autoencoder = dict(type='TinyAutoencoder', num_blocks=(1, 1), width=8)
        config = tmp_path / 'both.py'
        config.write_text(f'model = dict(generator={GENERATOR}, autoencoder={autoencoder})\n')
        assert_generator(eqzoo.load(tmp_path / 'dit.pt', config=config), dit)
        assert same(eqzoo.load(tmp_path / 'tiny.pth', config=config), tiny)
        assert same(load_autoencoder(tmp_path / 'tiny.pth', config), tiny)

    def test_a_file_cannot_name_arbitrary_functions(self, tmp_path, monkeypatch, dit):
        monkeypatch.chdir(tmp_path)
        for config in (
            dict(type='os.mkdir', path='sprung'),
            dict(type='KLAutoencoder'),
            {**GENERATOR, 'x': dict(type='os.mkdir')},
        ):
            torch.save(dict(state_dict=dit.network.state_dict(), generator=config), 'a.pth')
            with pytest.raises(ValueError, match=r'needs .*registered generators \(.*DiT'):
                eqzoo.load('a.pth')
        assert not (tmp_path / 'sprung').exists()

    def test_a_folder_or_a_pair_is_no_generators(self, tmp_path):
        with pytest.raises(ValueError, match='is a folder without a checkpoint'):
            eqzoo.load(tmp_path, config=GENERATOR)
        (tmp_path / 'a.pth').touch()
        with pytest.raises(ValueError, match='got 2 files; expected one'):
            eqzoo.load([tmp_path / 'a.pth'] * 2, config=GENERATOR)


@pytest.mark.parametrize('config', [dict(scale=0.18215), dict(autoencoder=dict(type='TinyAutoencoder')), dict(type=4)])
def test_a_config_without_a_type_is_refused(config, tmp_path):
    with pytest.raises(ValueError, match=r'got config=.*, without a `type`; .* such as dict\(type=') as error:
        eqzoo.load(tmp_path / 'a.pth', config=config)
    assert repr(config) in str(error.value)


def test_an_unknown_name_or_path_is_refused(tiny):
    with pytest.raises(ValueError, match=r"'tine'. Did you mean 'tiny'\? In the zoo: tiny"):
        eqzoo.load('tine')
    with pytest.raises(FileNotFoundError, match=r"no file 'nowhere/model.pth'"):
        eqzoo.load('nowhere/model.pth')


def test_downloading_says_where_and_how_sure(tiny, capsys):
    run(download, ['tiny'])
    out = capsys.readouterr().out
    path = eqzoo.zoo.cached('eqzoo://tiny')
    assert out.startswith(f'{path}\n  sha256 ')
    assert 'when it was first downloaded: none is published. Later downloads have to have it too.' in out
    assert out.endswith("import eqzoo\nautoencoder = eqzoo.load('tiny')\n")


def test_weights_that_come_with_eqzoo_need_no_download(capsys):
    download('clothes-f8')
    assert capsys.readouterr().out == (
        f"{eqzoo.zoo.cached('eqzoo://clothes-f8')}\n  comes with eqzoo.\n\nimport eqzoo\nautoencoder = eqzoo.load('clothes-f8')\n"
    )


def test_a_network_of_a_loss_is_only_downloaded(site, zoo, capsys):
    url = site.add('/vgg.pth', b'weights')
    (zoo(dict(Name='vgg', Weights=url, Config='configs/losses.py')) / 'losses.py').write_text('x = 1\n')
    with pytest.raises(ValueError, match='losses.py has no autoencoder'):
        eqzoo.load('vgg')
    assert not site.requests
    run(download, ['vgg'])
    assert 'eqzoo.load' not in capsys.readouterr().out


def test_the_list_shows_the_cache(tiny, capsys):
    run(download, ['--list'])
    before = capsys.readouterr().out.splitlines()
    assert before[0].split() == ['name', 'parameters', 'MB', 'sha256', 'here', 'licence;', 'config']
    assert before[1].split() == ['tiny', '1', '0.0', '-', '-', 'MIT;', 'configs/tiny.py']
    eqzoo.load('tiny')
    run(download, ['--list'])
    assert capsys.readouterr().out.splitlines()[1].split()[4] == 'yes'


def test_mistakes_of_the_command_are_one_message(tiny, site):
    with pytest.raises(SystemExit, match='give a NAME of --list, or a URL'):
        run(download, [])
    with pytest.raises(SystemExit, match="Unknown model 'tyny'"):
        run(download, ['tyny'])
    with pytest.raises(SystemExit, match=r'nowhere.pth: .*\(status 404\)'):
        run(download, [f'{site.url}/nowhere.pth'])


def test_a_config_imports_the_users_autoencoder(own):
    with pytest.raises(ValueError, match=r"says that it needs 'OwnAutoencoder'.*one with custom_imports"):
        eqzoo.load(own.file)
    autoencoder = eqzoo.load(own.file, config=own.config)
    assert type(autoencoder).__module__ == 'own_module'
    state = torch.load(own.file)['state_dict']
    assert torch.equal(autoencoder.encoder.layers[0].weight, state['encoder.layers.0.weight'])


def test_a_config_without_an_autoencoder_is_refused(tmp_path):
    path = tmp_path / 'empty.py'
    path.write_text('x = 1\n')
    with pytest.raises(ValueError, match='empty.py has no autoencoder; expected'):
        autoencoder_config(path)
