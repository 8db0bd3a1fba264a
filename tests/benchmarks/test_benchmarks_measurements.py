"""Files of measurements: their form, and the ratios of two side by side."""

import json
import re

import pytest

from eqzoo.benchmarks.measurements import (
    FORM,
    RatioChange,
    Row,
    compare_measurements,
    read_measurements,
    write_measurements,
)
from eqzoo.commands.benchmark import comparison
from eqzoo.commands.cli import run, run_benchmark
from eqzoo.machine import hardware

ROWS = [Row('step', {'time': 0.8, 'memory': 0.5}, {'images_per_second': 3.5}), Row('data', {'time': 0.1})]


def written(path, rows=ROWS, name='eq-step', **settings):
    write_measurements(path, name, settings or dict(size=64), rows)
    return path


def test_what_is_written_is_read(tmp_path):
    path = written(tmp_path / 'a.json')
    measurements = read_measurements(path)
    assert measurements.benchmark == 'eq-step'
    assert measurements.settings == {'size': 64}
    assert measurements.machine == hardware()
    assert measurements.rows == ROWS
    assert json.loads(path.read_text())['form'] == FORM


@pytest.mark.parametrize('ratio', [0.0, -1.0, float('nan'), float('inf')])
def test_a_ratio_is_a_positive_number(tmp_path, ratio):
    with pytest.raises(ValueError, match=r'step, time: expected a positive ratio'):
        written(tmp_path / 'a.json', [Row('step', {'time': ratio})])
    assert not (tmp_path / 'a.json').exists()


def test_two_rows_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="two rows are called 'step'"):
        written(tmp_path / 'a.json', [ROWS[0], ROWS[0]])


def test_ratios_are_compared_by_row_and_name(tmp_path):
    old = read_measurements(written(tmp_path / 'old.json'))
    rows = [Row('new', {'time': 2.0}), Row('step', {'time': 1.0, 'memory': 0.25})]
    new = read_measurements(written(tmp_path / 'new.json', rows))
    changes = compare_measurements(old, new)
    assert changes == [
        RatioChange('new', 'time', None, 2.0),
        RatioChange('step', 'time', 0.8, 1.0),
        RatioChange('step', 'memory', 0.5, 0.25),
        RatioChange('data', 'time', 0.1, None),
    ]
    assert [change.factor for change in changes] == [None, 1.25, 0.5, None]


def compared(capsys, *words):
    """Return the exit status or message of `benchmark compare`, and what it printed."""
    code = 0
    try:
        run(comparison.compare_files, list(map(str, words)))
    except SystemExit as end:
        code = end.code
    return code, capsys.readouterr().out


def test_a_ratio_that_became_worse_fails_the_comparison(tmp_path, capsys):
    old = written(tmp_path / 'old.json')
    new = written(tmp_path / 'new.json', [Row('step', {'time': 0.9, 'memory': 0.4}), Row('data', {'time': 0.1})])
    code, out = compared(capsys, old, new)  # 12.5 % are more than 10
    assert code == 'error: 1 of 3 ratios became worse by more than 10%.'
    assert [re.split(r'\s{2,}', line) for line in out.splitlines()] == [
        ['eq-step', 'old', 'new', 'change'],
        ['step, time', '0.800', '0.900', '+12.5%', 'worse'],
        ['step, memory', '0.500', '0.400', '-20.0%'],
        ['data, time', '0.100', '0.100', '+0.0%'],
    ]
    code, out = compared(capsys, old, new, '--tolerance', '0.13')
    assert code == 0
    assert out.endswith('No ratio became worse by more than 13%.\n')
    assert compared(capsys, new, old)[0].startswith('error: 1 of 3 ratios')  # 0.4 to 0.5


def test_a_ratio_that_is_not_measured_any_more_fails_the_comparison(tmp_path, capsys):
    old, new = written(tmp_path / 'old.json'), written(tmp_path / 'new.json', ROWS[:1])
    code, out = compared(capsys, old, new)
    assert code.startswith('error: 1 of 3 ratios')
    assert re.search(r'data, time +0.100 +- +-  not measured\n', out)
    assert compared(capsys, new, old)[0] == 0  # one more is no fault


def test_another_machine_is_named(tmp_path, capsys):
    old, new = written(tmp_path / 'old.json'), written(tmp_path / 'new.json')
    content = json.loads(old.read_text())
    content['machine']['processor'] = 'a slower one'
    old.write_text(json.dumps(content))
    code, out = compared(capsys, old, new)
    assert code == 0
    assert out.startswith(f'processor differs: a slower one, then {hardware()["processor"]}\n')


def test_files_of_another_kind_are_refused(tmp_path, capsys):
    good = written(tmp_path / 'good.json')
    other = written(tmp_path / 'other.json', name='store')
    assert compared(capsys, good, other)[0] == 'error: Two benchmarks: eq-step and store; expected two files of one.'
    larger = written(tmp_path / 'larger.json', size=128)
    assert re.search('size was 64 and is 128; run it with those', compared(capsys, good, larger)[0])
    more = written(tmp_path / 'more.json', size=64, rounds=2)
    assert re.search('rounds was nothing and is 2', compared(capsys, good, more)[0])
    (tmp_path / 'metrics.json').write_text('{"metrics": {}}')
    assert re.search(
        rf"metrics.json has the form None, not '{FORM}'", compared(capsys, good, tmp_path / 'metrics.json')[0]
    )
    (tmp_path / 'text.json').write_text('PSNR')
    assert 'text.json is no JSON file' in compared(capsys, tmp_path / 'text.json', good)[0]
    assert 'nowhere.json: no such file' in compared(capsys, good, tmp_path / 'nowhere.json')[0]
    content = json.loads(good.read_text())
    content['rows'][0]['ratios']['time'] = 'fast'
    (tmp_path / 'damaged.json').write_text(json.dumps(content))
    assert (
        'damaged.json is damaged (ValueError: a ratio is no positive number)'
        in compared(capsys, good, tmp_path / 'damaged.json')[0]
    )
    empty = written(tmp_path / 'empty.json', [Row('data', {})])
    assert 'have no ratios' in compared(capsys, empty, empty)[0]


def test_every_benchmark_has_the_option_out(tmp_path, capsys):
    path = tmp_path / 'frechet.json'
    run_benchmark(['frechet', '--features', '48', '--images', '1000', '--rounds', '1', '--out', str(path)])
    printed = capsys.readouterr().out
    assert printed.endswith(f'Written: {path}\n')
    measurements = read_measurements(path)
    assert (measurements.benchmark, measurements.settings) == ('frechet', dict(features=48, images=1000, rounds=1))
    (row,) = measurements.rows
    assert row.ratios['time'] == row.values['eqzoo'] / row.values['sqrtm']
    assert float(printed.split('ratio: ')[1].split('x')[0]) == pytest.approx(1 / row.ratios['time'], abs=0.05)
