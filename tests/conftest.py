"""Every test starts from the same random state, one thread, and the repository as working directory."""

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _same_start(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv('EQZOO_CACHE', '/nowhere/eqzoo')  # what this machine has downloaded changes no test
    torch.manual_seed(0)


@pytest.fixture
def root():
    return ROOT
