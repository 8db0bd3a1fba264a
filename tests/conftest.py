"""Every test starts from the same random state, one thread, and the repository as working directory.

Temporary folders are folders of smoke runs.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from browser import look  # noqa: F401, a fixture

from eqzoo.autoencoders import TinyAutoencoder
from eqzoo.registry import AUTOENCODERS

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _same_start(monkeypatch, tmp_path_factory):
    monkeypatch.chdir(ROOT)
    # what this machine has downloaded changes no test
    monkeypatch.setenv('EQZOO_CACHE', str(tmp_path_factory.getbasetemp() / 'cache'))
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def tmp_path_factory(tmp_path_factory):
    """Pytest's, with all folders below `work_dirs/smoke`: there `--smoke` writes to the folders that it is given."""
    folder = tmp_path_factory.getbasetemp() / 'work_dirs' / 'smoke'
    folder.mkdir(parents=True, exist_ok=True)
    tmp_path_factory._basetemp = folder
    return tmp_path_factory


@pytest.fixture
def root():
    return ROOT


OWN_MODULE = """
from eqzoo.autoencoders import TinyAutoencoder
from eqzoo.registry import AUTOENCODERS


@AUTOENCODERS.register_module()
class OwnAutoencoder(TinyAutoencoder):
    pass
"""
OWN_CONFIG = """
from mmengine.config import read_base

with read_base():
    from eqzoo.configs.demo.rot_scale import *

custom_imports = dict(imports=['own_module'])
model.autoencoder = dict(type='OwnAutoencoder', num_blocks=(1, 1, 1), width=8)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A checkpoint of a user's class that is not imported yet, and a config whose `custom_imports` have it."""
    folder = tmp_path / 'own'
    folder.mkdir()
    monkeypatch.setattr(sys, 'path', [*sys.path])
    (folder / 'own_module.py').write_text(OWN_MODULE)
    (folder / 'own_config.py').write_text(OWN_CONFIG)
    arguments = dict(num_blocks=(1, 1, 1), width=8)
    state = TinyAutoencoder(**arguments).state_dict()
    torch.save(dict(state_dict=state, autoencoder=dict(type='OwnAutoencoder', **arguments)), folder / 'own.pth')
    yield SimpleNamespace(folder=folder, config=str(folder / 'own_config.py'), file=str(folder / 'own.pth'))
    sys.modules.pop('own_module', None)
    AUTOENCODERS.module_dict.pop('OwnAutoencoder', None)  # other tests go through all that is registered


@pytest.fixture
def assert_same():
    """A function that compares nested values bit for bit."""
    return _assert_same


def _assert_same(left, right, where=''):
    """Compare nested checkpoints bit for bit."""
    assert type(left) is type(right), where
    if isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            _assert_same(left[key], right[key], f'{where}.{key}')
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), where
        for index, (a, b) in enumerate(zip(left, right, strict=True)):
            _assert_same(a, b, f'{where}[{index}]')
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    else:
        assert left == right, where
