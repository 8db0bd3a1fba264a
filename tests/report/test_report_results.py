"""Reading metrics.json, and short names of several."""

import json
import re
from pathlib import Path

import pytest

from eqzoo.report import read_result, run_names


def test_a_file_and_its_folder_are_the_same(write, result):
    path = write('plain', result())
    read = read_result(path)
    assert read == read_result(path.parent)
    assert read._asdict() == {'path': path, **result()}


def test_older_files_lack_curves(write, result):
    content = result()
    del content['curves'], content['cases']
    read = read_result(write('old', content))
    assert (read.curves, read.cases) == ([], {})


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / 'no.json', tmp_path):
        name = re.escape(str(tmp_path / ('no.json' if path.suffix else 'metrics.json')))
        with pytest.raises(ValueError, match=f'^{name} does not exist; .*Run tools/test.py'):
            read_result(path)


@pytest.mark.parametrize('content', [b'', b'{"metrics": ', b'\xff\xfe\x00', b'PK\x03\x04', b'[' * 100_000])
def test_a_file_that_is_not_json_is_refused(tmp_path, content):
    (tmp_path / 'a.json').write_bytes(content)
    with pytest.raises(ValueError, match=r'a.json is not JSON \(.*expected a metrics.json'):
        read_result(tmp_path / 'a.json')


CARD = dict(evaluators={})


@pytest.mark.parametrize(
    ('content', 'defect'),
    [
        ([], 'it has no metrics with their card'),
        ({'plain': {'psnr': 1.0}}, 'it has no metrics with their card'),  # the demo's comparison.json
        (dict(metrics={'psnr': 1.0}), 'it has no metrics with their card'),
        (dict(metrics=[], card=CARD), 'its metrics are not numbers'),
        (dict(metrics={'psnr': '1'}, card=CARD), "metrics['psnr'] is '1'"),
        (dict(metrics={'psnr': True}, card=CARD), "metrics['psnr'] is True"),
        (dict(metrics={}, cases={'a': []}, card=CARD), "cases['a'] is []"),
        (dict(metrics={}, card=[]), 'its card names no evaluators'),
        (dict(metrics={}, card={}), 'its card names no evaluators'),
        (dict(metrics={}, card=dict(evaluators={'a': 1})), 'its card names no evaluators'),
        (dict(metrics={}, card=CARD, curves={}), 'its curves are not a list'),
        (dict(metrics={}, card=CARD, curves=[1]), 'a curve must be an object with a title'),
    ],
)
def test_a_file_without_metrics_and_card_is_refused(tmp_path, content, defect):
    (tmp_path / 'a.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf'a.json is not a metrics file: {re.escape(defect)}.*xpected a metrics.json'):
        read_result(tmp_path / 'a.json')


@pytest.mark.parametrize(
    ('paths', 'names'),
    [
        (['runs/a/metrics.json'], ['a']),
        (['runs/a/metrics.json', 'runs/b/metrics.json'], ['a', 'b']),
        (['/x/a/test/metrics.json', '/x/b/test/metrics.json'], ['a/test', 'b/test']),
        (['runs/a.json', 'runs/b.json'], ['a', 'b']),
        (['runs/a/metrics.json', 'other/b.json'], ['a', 'b']),
        (['/metrics.json', '/a/metrics.json'], ['metrics', 'a']),
        (['a/metrics.json', 'a/metrics.json', 'a/metrics.json'], ['a', 'a #2', 'a #3']),
        (['org/FLUX.1-dev', 'org/FLUX.1-schnell'], ['FLUX.1-dev', 'FLUX.1-schnell']),  # names of models, not of files
        (['org/stable-diffusion-3.5-large', 'runs/vae.safetensors'], ['stable-diffusion-3.5-large', 'vae']),
    ],
)
def test_names_are_as_short_as_they_can_be(paths, names):
    assert run_names([Path(each) for each in paths]) == names
