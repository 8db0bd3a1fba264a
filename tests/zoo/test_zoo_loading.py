"""`eqzoo.load`: names, files and URLs."""

import pytest
import torch
from safetensors.torch import save

import eqzoo
from eqzoo.autoencoders import TinyAutoencoder
from eqzoo.commands.cli import run
from eqzoo.commands.download import download
from eqzoo.loading import autoencoder_config

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


def test_what_is_neither_is_told(tiny):
    with pytest.raises(ValueError, match=r"Unknown model 'tine'. Did you mean 'tiny'\? In the zoo: tiny"):
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


def test_a_network_that_is_no_autoencoder_is_only_downloaded(site, zoo, capsys):
    url = site.add('/vgg.pth', b'weights')
    (zoo(dict(Name='vgg', Weights=url, Config='configs/losses.py')) / 'losses.py').write_text('x = 1\n')
    with pytest.raises(ValueError, match='has no autoencoder'):
        eqzoo.load('vgg')
    assert not site.requests
    run(download, ['vgg'])
    assert 'eqzoo.load' not in capsys.readouterr().out


def test_the_list_knows_what_is_here(tiny, capsys):
    run(download, ['--list'])
    before = capsys.readouterr().out.splitlines()
    assert before[0].split() == ['name', 'parameters', 'MB', 'sha256', 'here', 'licence;', 'config']
    assert before[1].split() == ['tiny', '1', '0.0', '-', '-', 'MIT;', 'configs/tiny.py']
    eqzoo.load('tiny')
    run(download, ['--list'])
    assert capsys.readouterr().out.splitlines()[1].split()[4] == 'yes'


def test_mistakes_of_the_command_are_one_message(tiny, site):
    with pytest.raises(SystemExit, match='nothing to download; give a NAME of --list, or a URL'):
        run(download, [])
    with pytest.raises(SystemExit, match="Unknown model 'tyny'"):
        run(download, ['tyny'])
    with pytest.raises(SystemExit, match=r'nowhere.pth: there is no such file \(status 404\)'):
        run(download, [f'{site.url}/nowhere.pth'])


def test_a_config_without_an_autoencoder_is_told(tmp_path):
    path = tmp_path / 'empty.py'
    path.write_text('x = 1\n')
    with pytest.raises(ValueError, match='has no autoencoder; accepted is a config with `autoencoder` or `model.auto'):
        autoencoder_config(path)
