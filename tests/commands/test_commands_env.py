"""`eqzoo env` prints what a report of a problem needs, and no secrets."""

import re
import subprocess
from importlib.metadata import version

import torch

from eqzoo import __version__
from eqzoo.commands import cli, env


def printed(capsys):
    cli.main(['env'])
    return dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())


def test_versions_and_devices_are_those_of_this_process(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv('EQZOO_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setenv('HF_TOKEN', 'hf_secret')
    lines = printed(capsys)
    assert lines['eqzoo'].split(',')[0] == __version__
    assert (lines['torch'], lines['numpy']) == (torch.__version__.split('+')[0], version('numpy'))
    assert f'{torch.get_num_threads()} threads of torch' in lines['processor']
    assert lines['cache'] == str(tmp_path / 'cache')
    assert 'EQZOO_CACHE, HF_TOKEN' in lines['variables']
    assert 'hf_secret' not in str(lines)


def test_a_checkout_has_its_commit_and_says_what_differs(monkeypatch, capsys, tmp_path):
    git = ['git', '-C', str(tmp_path), '-c', 'user.name=a', '-c', 'user.email=a@b']
    for words in (['init', '-q'], ['commit', '-q', '--allow-empty', '-m', 'first']):
        subprocess.run([*git, *words], check=True)
    (tmp_path / 'file').write_text('1')
    subprocess.run([*git, 'add', 'file'], check=True)
    monkeypatch.setattr(env, '_ROOT', tmp_path)
    commit = subprocess.run([*git, 'rev-parse', '--short=10', 'HEAD'], capture_output=True, text=True).stdout.strip()
    assert printed(capsys)['eqzoo'] == f'{__version__}, commit {commit}, with changes'
    monkeypatch.setattr(env, '_ROOT', tmp_path / 'file')  # an installed package
    assert printed(capsys)['eqzoo'] == __version__


def test_packages_that_are_not_installed_are_named(monkeypatch, capsys):
    monkeypatch.setattr(env, 'requires', lambda name: ['torch >= 2.6', 'no_such_package >= 1; extra == "a"'])
    cli.main(['env'])
    assert re.search(r'^not installed +no_such_package$', capsys.readouterr().out, re.MULTILINE)
