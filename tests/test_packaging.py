"""Packaging: the wheel and the sdist are complete, and the wheel runs without the checkout."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from house import House

import eqzoo

# The parts of a checkout that an sdist has: other files may lie there too, such as data.
FOLDERS = ('.github', 'configs', 'docs', 'eqzoo', 'registry', 'tests', 'tools')
FILES = {
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
}
BUILD = 'import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])'


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """A folder with `checkout`, a copy; `sdist` and `wheel` built of it; and `again`, the wheel built of the sdist."""
    folder, root = tmp_path_factory.mktemp('built'), Path(__file__).parent.parent
    for name in FOLDERS:  # a build in the checkout itself would leave files there
        shutil.copytree(root / name, folder / 'checkout' / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in FILES:
        shutil.copy(root / name, folder / 'checkout')
    build('sdist', folder / 'checkout', folder / 'sdist')
    build('wheel', folder / 'checkout', folder / 'wheel')
    with tarfile.open(only(folder / 'sdist')) as archive:
        archive.extractall(folder / 'unpacked', filter='data')
    build('wheel', only(folder / 'unpacked'), folder / 'again')
    return folder


def build(kind, source, target):
    subprocess.run([sys.executable, '-c', BUILD, f'build_{kind}', target], cwd=source, check=True, capture_output=True)


def only(folder):
    (path,) = folder.iterdir()
    return path


def in_wheel(folder):
    return set(zipfile.ZipFile(only(folder)).namelist())


def files(folder, pattern='*'):
    return {str(path.relative_to(folder)) for path in folder.rglob(pattern) if path.is_file()}


def test_every_package_is_listed(root):
    setup = configparser.ConfigParser()
    setup.read(root / 'setup.cfg')
    packages = {'.'.join(path.parent.relative_to(root).parts) for path in root.glob('eqzoo/**/__init__.py')}
    assert set(setup['options']['packages'].split()) == packages | {'eqzoo.configs', 'eqzoo.registry'}


# Where a module's name is not the package's; and modules that come with a package that is declared, or that are not needed.
PACKAGE_OF = {
    **dict(cv2='opencv_python_headless', mmengine='mmengine_lite', PIL='pillow', taming='taming_transformers_rom1504'),
    **dict(yaml='pyyaml', markupsafe='jinja2'),
}
NOT_NEEDED = {'simplejpeg'}  # takes part in a benchmark if it is installed
UNTESTED_EXTRAS = {'8bit', 'mlflow'}  # their packages are large, and their tests are skipped without them


@pytest.fixture
def declared(root):
    """The requirements of setup.cfg by extra, '' for those that are always installed, as {package: requirement}."""
    setup = configparser.ConfigParser()
    setup.read(root / 'setup.cfg')
    groups = {'': setup['options']['install_requires'], **setup['options.extras_require']}
    names = {extra: [line for line in lines.splitlines() if line] for extra, lines in groups.items()}
    return {
        extra: {re.match(r'[\w.-]+', line)[0].replace('-', '_').lower(): line for line in lines}
        for extra, lines in names.items()
    }


def test_every_package_that_is_imported_is_declared(declared):
    modules = {each.module.partition('.')[0] for found in House().imports.values() for each in found}
    packages = {PACKAGE_OF.get(name, name) for name in modules - sys.stdlib_module_names - {'eqzoo'}}
    known = {package for extra, found in declared.items() if extra not in ('test', 'docs') for package in found}
    assert {name.lower() for name in packages} - known - NOT_NEEDED == set()


def test_extras_are_those_that_messages_and_pages_name(root, declared):
    def named_in(*patterns):
        texts = [path.read_text() for pattern in patterns for path in root.glob(pattern)]
        found = [re.findall(r'(?:eqzoo|\.)\[([a-z0-9]+(?:,[a-z0-9]+)*)\]', text) for text in texts]
        return {extra for each in found for extras in each for extra in extras.split(',')}

    in_messages, in_pages = named_in('eqzoo/**/*.py'), named_in('docs/**/*.md', 'README.md', 'Makefile')
    assert in_messages | in_pages <= set(declared)
    assert in_messages == set(declared) - {'', 'notebook', 'test', 'docs'}
    assert in_pages == set(declared) - {''}


def test_the_extra_for_tests_repeats_the_others(declared):
    """A name in two places: with the same versions, and none left out."""
    tests = declared['test']
    for extra in set(declared) - {'', 'test', 'docs'} - UNTESTED_EXTRAS:
        assert declared[extra].items() <= tests.items(), extra


def test_the_citation_is_of_this_version(root):
    citation = yaml.safe_load((root / 'CITATION.cff').read_text())
    assert (citation['cff-version'], citation['version']) == ('1.2.0', eqzoo.__version__)
    (paper,) = citation['references']
    assert [each['family-names'] for each in paper['authors']] == ['Kouzelis', 'Kakogeorgiou', 'Gidaris', 'Komodakis']
    assert paper['url'] == 'https://arxiv.org/abs/2502.09509'


def test_wheel_and_sdist_are_complete(built):
    checkout = built / 'checkout'
    inside = {name for name in in_wheel(built / 'wheel') if '.dist-info/' not in name}
    configs = set.union(*(files(checkout / 'configs', f'*.{kind}') for kind in ('py', 'yml', 'safetensors')))
    expected = files(checkout / 'eqzoo') | {f'configs/{name}' for name in configs}
    assert inside == {
        f'eqzoo/{name}' for name in expected | {f'registry/{name}' for name in files(checkout / 'registry')}
    }
    assert {'eqzoo/py.typed', 'eqzoo/report/templates/page.html', 'eqzoo/configs/dit/metafile.yml'} <= inside
    assert in_wheel(built / 'again') == in_wheel(built / 'wheel')
    with tarfile.open(only(built / 'sdist')) as archive:
        inside = {each.name.partition('/')[2] for each in archive if each.isfile()}
    generated = {name for name in inside if name == 'PKG-INFO' or name.startswith('eqzoo.egg-info/')}
    wanted = {f'{folder}/{name}' for folder in FOLDERS for name in files(checkout / folder)}
    assert inside - generated == FILES | wanted


def test_the_metadata_is_complete(built):
    with zipfile.ZipFile(only(built / 'wheel')) as archive:
        folder = f'eqzoo-{eqzoo.__version__}.dist-info'
        head = archive.read(f'{folder}/METADATA').decode().partition('\n\n')[0].splitlines()
        assert 'eqzoo = eqzoo.commands.cli:main' in archive.read(f'{folder}/entry_points.txt').decode()
    paper = 'Project-URL: Paper, https://arxiv.org/abs/2502.09509'
    assert {f'Version: {eqzoo.__version__}', 'Requires-Python: >=3.10', paper} <= set(head)
    assert any(line.endswith(': Apache-2.0') for line in head)


def test_the_wheel_runs_in_an_empty_folder(built, tmp_path, monkeypatch):
    installed = tmp_path / 'installed'
    pip = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-index', '--target', installed]
    subprocess.run([*pip, only(built / 'wheel')], check=True)
    (tmp_path / 'empty').mkdir()
    monkeypatch.chdir(tmp_path / 'empty')
    places = [str(installed), sysconfig.get_path('purelib'), sysconfig.get_path('platlib')]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(places), 'OMP_NUM_THREADS': '1'}

    def python(*words):
        # without `site` (-S), an editable installation of the checkout is not found
        command = [sys.executable, '-S', *words]
        result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        assert result.returncode == 0, result.stderr
        return result.stdout

    where = python('-c', 'import eqzoo, eqzoo.registry; print(eqzoo.__file__, eqzoo.registry.__file__)').split()
    assert where == [f'{installed}/eqzoo/__init__.py', f'{installed}/eqzoo/registry/__init__.py']
    for words in (['-m', 'eqzoo'], [f'{installed}/bin/eqzoo']):
        assert python(*words, '--version') == f'eqzoo {eqzoo.__version__}\n'
    assert 'configs/_base_/autoencoders/sd_vae.py' in python('-m', 'eqzoo', 'download', '--list')
    python('-m', 'eqzoo', 'train', 'configs/eqvae/sdxl_rot_scale.py', '--smoke')
    assert Path('work_dirs/smoke/eqvae/sdxl_rot_scale/iter_4.pth').is_file()
    Path('mine').mkdir()
    Path('mine/half.py').write_text(
        'from mmengine.config import read_base\n\n'
        'with read_base():\n    from eqzoo.configs.demo.rot_scale import *\n\n'
        'model.autoencoder.update(weights=None)\ntrain_cfg.update(max_iters=7)\n'
    )
    described = python('-m', 'eqzoo', 'train', 'mine/half.py', '--dry-run')
    assert '7 of ' in described
    assert 'work_dirs/mine/half' in described
