"""What is built from the checkout works without it, with the configs inside."""

import configparser
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import eqzoo

# What an sdist has of a checkout: not what else lies there, such as data.
PARTS = ('configs', 'docs', 'eqzoo', 'registry', 'tests', 'tools')
FILES = (
    'CHANGELOG.md',
    'CITATION.cff',
    'CONTRIBUTING.md',
    'LICENSE',
    'MANIFEST.in',
    'Makefile',
    'README.md',
    'mkdocs.yml',
    'model-index.yml',
    'pyproject.toml',
    'setup.cfg',
    'setup.py',
)
BUILD = 'import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])'


@pytest.fixture(scope='session')
def built(tmp_path_factory):
    """A folder with `checkout`, a copy; `sdist` and `wheel` built of it; and `again`, the wheel built of the sdist."""
    folder = tmp_path_factory.mktemp('built')
    (folder / 'checkout').mkdir()  # a build in the checkout itself would leave files there
    root = Path(__file__).parent.parent
    for name in PARTS:
        shutil.copytree(root / name, folder / 'checkout' / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in FILES:
        shutil.copy(root / name, folder / 'checkout')
    build('sdist', folder / 'checkout', folder / 'sdist')
    build('wheel', folder / 'checkout', folder / 'wheel')
    with tarfile.open(only(folder / 'sdist')) as archive:
        archive.extractall(folder / 'unpacked', filter='data')
    build('wheel', only(folder / 'unpacked'), folder / 'again')
    return folder


@pytest.fixture(scope='session')
def installed(built, tmp_path_factory):
    """The folder that pip has installed the wheel in."""
    target = tmp_path_factory.mktemp('installed')
    words = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-index', '--target', target]
    subprocess.run([*words, only(built / 'wheel')], check=True)
    return target


@pytest.fixture
def shell(installed, tmp_path, monkeypatch):
    """A function that runs Python from an empty folder, on the installed wheel.

    Without `site` (-S), the editable installation of the checkout is not found, nor part of it.
    """
    monkeypatch.chdir(tmp_path)
    places = [str(installed), sysconfig.get_path('purelib'), sysconfig.get_path('platlib')]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(places), 'OMP_NUM_THREADS': '1'}

    def run(*words):
        command = [sys.executable, '-S', *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)

    return run


def build(kind, source, target):
    subprocess.run([sys.executable, '-c', BUILD, f'build_{kind}', target], cwd=source, check=True, capture_output=True)


def only(folder):
    (path,) = folder.iterdir()
    return path


def names_in_wheel(folder):
    with zipfile.ZipFile(only(folder)) as archive:
        return set(archive.namelist())


def files(folder, *patterns):
    found = (path.relative_to(folder) for pattern in patterns for path in folder.rglob(pattern))
    return {str(path) for path in found if (folder / path).is_file()}


def test_every_package_is_listed(root):
    setup = configparser.ConfigParser()
    setup.read(root / 'setup.cfg')
    listed = set(setup['options']['packages'].split())
    folders = [path.parent.relative_to(root) for path in root.glob('eqzoo/**/__init__.py')]
    there = {'.'.join(Path(folder).parts) for folder in folders} | {'eqzoo.configs', 'eqzoo.registry'}
    assert listed == there


def test_the_citation_is_of_this_version(root):
    citation = yaml.safe_load((root / 'CITATION.cff').read_text())
    assert citation['cff-version'] == '1.2.0'
    assert citation['version'] == eqzoo.__version__
    (paper,) = citation['references']
    assert [each['family-names'] for each in paper['authors']] == ['Kouzelis', 'Kakogeorgiou', 'Gidaris', 'Komodakis']
    assert paper['url'] == 'https://arxiv.org/abs/2502.09509'


def test_a_wheel_has_all_that_the_checkout_has(built):
    checkout = built / 'checkout'
    expected = files(checkout / 'eqzoo', '*')
    expected |= {f'configs/{name}' for name in files(checkout / 'configs', '*.py', '*.yml')}
    expected |= {f'registry/{name}' for name in files(checkout / 'registry', '*')}
    inside = {name for name in names_in_wheel(built / 'wheel') if '.dist-info/' not in name}
    assert inside == {f'eqzoo/{name}' for name in expected}
    assert {'eqzoo/py.typed', 'eqzoo/report/templates/page.html', 'eqzoo/configs/dit/metafile.yml'} <= inside


def test_an_sdist_has_all_and_makes_the_same_wheel(built):
    assert names_in_wheel(built / 'again') == names_in_wheel(built / 'wheel')
    with tarfile.open(only(built / 'sdist')) as archive:
        inside = {each.name.partition('/')[2] for each in archive if each.isfile()}
    wanted = {f'{part}/{name}' for part in PARTS for name in files(built / 'checkout' / part, '*')}
    made = {'PKG-INFO', *(name for name in inside if name.startswith('eqzoo.egg-info/'))}
    assert inside - made == {*FILES, *wanted}


def test_the_metadata_is_whole(built):
    with zipfile.ZipFile(only(built / 'wheel')) as archive:
        folder = f'eqzoo-{eqzoo.__version__}.dist-info'
        metadata = archive.read(f'{folder}/METADATA').decode()
        assert 'eqzoo = eqzoo.commands.cli:main' in archive.read(f'{folder}/entry_points.txt').decode()
    head = metadata.partition('\n\n')[0].splitlines()
    assert f'Version: {eqzoo.__version__}' in head
    assert 'Requires-Python: >=3.10' in head
    assert any(line.endswith(': Apache-2.0') for line in head)
    assert 'Project-URL: Paper, https://arxiv.org/abs/2502.09509' in head


def test_the_program_is_of_the_wheel_and_says_its_version(shell, installed):
    where = shell('-c', 'import eqzoo, eqzoo.registry; print(eqzoo.__file__, eqzoo.registry.__file__)').stdout.split()
    assert where == [str(installed / 'eqzoo' / '__init__.py'), str(installed / 'eqzoo' / 'registry' / '__init__.py')]
    for words in (['-m', 'eqzoo'], [str(installed / 'bin' / 'eqzoo')]):
        assert shell(*words, '--version').stdout == f'eqzoo {eqzoo.__version__}\n'


def test_the_index_is_in_the_wheel(shell):
    result = shell('-m', 'eqzoo', 'download', '--list')
    assert result.returncode == 0, result.stderr
    assert 'configs/_base_/autoencoders/sd_vae.py' in result.stdout


def test_a_config_of_the_wheel_trains_where_it_was_called(shell, tmp_path):
    result = shell('-m', 'eqzoo', 'train', 'configs/eqvae/sdxl_rot_scale.py', '--smoke')
    assert result.returncode == 0, result.stderr
    assert (tmp_path / 'work_dirs' / 'smoke' / 'eqvae' / 'sdxl_rot_scale' / 'iter_4.pth').is_file()


def test_a_config_of_ones_own_is_built_on_the_wheels(shell, tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'half.py').write_text(
        'from mmengine.config import read_base\n\n'
        'with read_base():\n    from eqzoo.configs.demo.rot_scale import *\n\n'
        'model.autoencoder.update(weights=None)\ntrain_cfg.update(max_iters=7)\n'
    )
    result = shell('-m', 'eqzoo', 'train', 'mine/half.py', '--dry-run')
    assert result.returncode == 0, result.stderr
    assert '7 of ' in result.stdout
    assert 'work_dirs/mine/half' in result.stdout
