"""The notebook can be read here, and is run, in a folder of its own, in the slow tests."""

import ast
import json
import re

import pytest
from markdown_pages import ROOT

from eqzoo.config import load_config

PATH = ROOT / 'docs/notebooks/first_steps.ipynb'


def test_it_is_stored_without_outputs():
    notebook = json.loads(PATH.read_text())
    cells = [cell for cell in notebook['cells'] if cell['cell_type'] == 'code']
    assert len(cells) > 5
    assert all(cell['outputs'] == [] and cell['execution_count'] is None for cell in cells)


def test_its_code_and_its_configs_can_be_read(tmp_path):
    cells = [''.join(cell['source']) for cell in json.loads(PATH.read_text())['cells'] if cell['cell_type'] == 'code']
    for cell in cells:
        first, _, rest = cell.partition('\n')
        written = re.fullmatch(r'%%writefile \{folder\}/(\w+\.py)', first)
        ast.parse(rest if written else cell)
        if written:
            (tmp_path / written[1]).write_text(rest)
    objectives = {path.stem: load_config(path).model.objective.type for path in tmp_path.glob('*.py')}
    assert objectives == dict(start='Plain', eq='ImplicitEquivariance')


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')  # of jupyter's own packages, in the process that only passes cells on
def test_it_runs_and_its_claims_hold(tmp_path, monkeypatch):
    client = pytest.importorskip('nbclient')
    formats = pytest.importorskip('nbformat')
    pytest.importorskip('ipykernel')
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    for name in ('http_proxy', 'https_proxy'):  # nothing can be downloaded
        monkeypatch.setenv(name, 'http://127.0.0.1:9')
    notebook = formats.read(PATH, as_version=4)
    client.NotebookClient(notebook, timeout=1800, resources={'metadata': {'path': str(tmp_path)}}).execute()
    outputs = [each for cell in notebook.cells for each in cell.get('outputs', [])]
    printed = ''.join(each.text for each in outputs if each.output_type == 'stream')
    assert len([each for each in outputs if 'image/png' in each.get('data', {})]) >= 8
    (line,) = re.findall(r"\{'start': ([\d.]+), 'plain': ([\d.]+), 'eq': ([\d.]+)\}", printed)
    start, plain, eq = map(float, line)
    assert eq < 0.5 * min(start, plain)  # the error falls with the objective, not with more training
    spread = float(re.search(r'spread of scaled latents ([\d.]+)', printed)[1])
    assert spread == pytest.approx(1, abs=0.1)  # which is what the measured factor is for
    (folder,) = tmp_path.glob('*/my-vae')
    assert {file.name for file in folder.iterdir()} >= {'README.md', 'config.json'}


def test_it_is_in_the_navigation():
    assert 'first_steps.md' in (ROOT / 'mkdocs.yml').read_text()
    assert f'(notebooks/{PATH.name})' in (ROOT / 'docs/first_steps.md').read_text()
