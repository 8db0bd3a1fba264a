"""`eqzoo env` prints what a report of a problem needs, and no secrets."""

import re
import subprocess
from importlib.metadata import version

import pytest
import torch
import yaml

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
    assert {'EQZOO_CACHE', 'HF_TOKEN'} <= set(lines['variables'].removeprefix('set').strip().split(', '))
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


# As setuptools writes them, and as a checkout has them.
METADATA = [
    'torch>=2.6',
    'no_such_core',
    'no-such-extra>=1; extra == "a"',
    'numpy; extra == "a"',
    'none; extra == "test"',
]
SETUP = """
[metadata]
name = eqzoo
[options]
install_requires =
    torch >= 2.6
    # a comment
    no_such_core
[options.extras_require]
a =
    no-such-extra >= 1
    numpy
test =
    none
"""


@pytest.mark.parametrize('is_checkout', [False, True])
def test_missing_packages_are_named_with_their_extra(is_checkout, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(env, '_ROOT', tmp_path)
    monkeypatch.setattr(env, 'requires', lambda name: [] if is_checkout else METADATA)
    if is_checkout:
        (tmp_path / 'setup.cfg').write_text(SETUP)
    cli.main(['env'])
    out = capsys.readouterr().out
    assert re.search(r'^numpy +\d', out, re.MULTILINE)
    assert re.search(r'^not installed +no_such_core$', out, re.MULTILINE)
    assert re.search(r"^missing extras +a \(no-such-extra\); pip install 'eqzoo\[NAME\]' adds one$", out, re.MULTILINE)
    assert 'none' not in out.partition('processor')[0]


def test_the_form_for_bugs_needs_its_output(root):
    form = yaml.safe_load((root / '.github/ISSUE_TEMPLATE/bug.yml').read_text())
    (field,) = [each for each in form['body'] if 'eqzoo env' in each['attributes']['label']]
    assert field['validations'] == {'required': True}
    method = yaml.safe_load((root / '.github/ISSUE_TEMPLATE/method.yml').read_text())
    assert {each['id'] for each in method['body']} == {'paper', 'code', 'claim', 'formula'}
