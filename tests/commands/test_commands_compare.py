"""`tools/compare.py`: what it prints and writes, and a mistake as one message."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from eqzoo.commands.cli import run
from eqzoo.commands.compare import compare


@pytest.fixture
def write(tmp_path):
    """A function (name, psnr, protocol) → the path of a metrics.json."""

    def function(name, psnr, protocol='uint8'):
        evaluators = dict(ReconstructionMetric=dict(metrics=['psnr'], protocol=protocol))
        curve = dict(title='Spectrum', x='f', y='power', log=True, series=[dict(label='', x=[1, 2], y=[2.0, 1.0])])
        content = dict(metrics={'psnr': psnr}, cases={}, curves=[curve], card=dict(num_images=8, evaluators=evaluators))
        path = tmp_path / name / 'metrics.json'
        path.parent.mkdir()
        path.write_text(json.dumps(content))
        return str(path)

    return function


def run_compare(tmp_path, *words):
    return run(compare, [*words, '--out', str(tmp_path / 'out')])


def test_three_results(write, tmp_path, capsys):
    paths = [write('plain', 25.5), write('eq', 26.5), write('third', 24.0)]
    run_compare(tmp_path, *paths)
    assert capsys.readouterr().out == (
        'metric    plain       eq      third\n'
        'psnr ↑    25.50    26.50 *    24.00\n'
        '\n'
        '* best of its line\n'
        '\n'
        f'Written: {tmp_path}/out/comparison.md, comparison.csv and comparison.html\n'
    )
    assert {path.name for path in (tmp_path / 'out').glob('[!.]*')} == {
        f'comparison.{kind}' for kind in ('md', 'csv', 'html')
    }
    with (tmp_path / 'out' / 'comparison.csv').open() as file:
        assert list(csv.reader(file))[1] == ['psnr', 'higher', '25.5', '26.5', '24.0', '']
    assert '| psnr ↑ | 25.50 | **26.50** | 24.00 |' in (tmp_path / 'out' / 'comparison.md').read_text()
    page = (tmp_path / 'out' / 'comparison.html').read_text()
    assert '<td class="value best" title="26.5">26.50</td>' in page
    assert page.count('<svg') == 1


def test_unlike_results_are_refused_before_anything_is_written(write, tmp_path, capsys):
    paths = [write('plain', 25.5), write('eq', 26.5, protocol='eqvae')]
    with pytest.raises(SystemExit, match='^error: psnr .*protocol is "uint8" in plain'):
        run_compare(tmp_path, *paths)
    assert not (tmp_path / 'out').exists()
    run_compare(tmp_path, *paths, '--allow-unlike')
    assert '26.50 [1]' in capsys.readouterr().out
    assert '<sup><a href="#note-1">1</a></sup>' in (tmp_path / 'out' / 'comparison.html').read_text()


def test_stray_bytes_in_names_are_spelled_out(write, tmp_path, capsys):
    paths = [write(name, 25.5) for name in ('plain', 'caf\udce9')]
    for path, names in zip(paths, (['\udcff.png'], []), strict=True):
        content = json.loads(Path(path).read_text())
        content['card'] |= dict(config='\udcfe.py', unreadable=names)
        Path(path).write_text(json.dumps(content))
    run_compare(tmp_path, *paths, '--allow-unlike')
    assert r'[1] caf\udce9 against plain: unreadable is [], not ["\udcff.png"]' in capsys.readouterr().out
    assert r'\udcfe.py' in (tmp_path / 'out' / 'comparison.md').read_text()
    assert r'caf\udce9' in (tmp_path / 'out' / 'comparison.csv').read_text()


def test_a_missing_file_is_named(write, tmp_path):
    with pytest.raises(SystemExit, match='^error: .*nowhere.json does not exist'):
        run_compare(tmp_path, write('plain', 25.5), str(tmp_path / 'nowhere.json'))


def test_a_file_is_needed(capsys):
    with pytest.raises(SystemExit):
        run(compare, [])
    assert 'RESULTS' in capsys.readouterr().err


def test_as_a_shell_runs_it(write, tmp_path):
    words = [sys.executable, 'tools/compare.py', write('plain', 25.5), str(tmp_path / 'plain'), '--out', str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout.startswith('metric    plain  plain #2\npsnr ↑    25.50     25.50\n')
