"""The notebook is run as its reader would run it, in a folder of its own; the short way here, the whole in the slow tests."""

import json
import re

import pytest
from markdown_pages import ROOT

PATH = ROOT / 'docs/notebooks/first_steps.ipynb'
STEPS = re.compile(r'^steps = \d+$', re.MULTILINE)


def test_it_is_stored_without_outputs():
    notebook = json.loads(PATH.read_text())
    cells = [cell for cell in notebook['cells'] if cell['cell_type'] == 'code']
    assert len(cells) > 5
    assert all(cell['outputs'] == [] and cell['execution_count'] is None for cell in cells)


@pytest.mark.filterwarnings('ignore')  # of jupyter's own packages, in the process that only passes cells on
@pytest.mark.parametrize('steps', [2, pytest.param(None, marks=pytest.mark.slow)])
def test_it_runs_and_its_vae_opens(steps, tmp_path, monkeypatch):
    """With the steps that it has, its claim holds as well: the error falls with the objective only."""
    client = pytest.importorskip('nbclient')
    formats = pytest.importorskip('nbformat')
    pytest.importorskip('ipykernel')
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    for name in ('http_proxy', 'https_proxy'):  # nothing can be downloaded
        monkeypatch.setenv(name, 'http://127.0.0.1:9')
    notebook = formats.read(PATH, as_version=4)
    for cell in notebook.cells:
        if steps is not None:
            cell.source = STEPS.sub(f'steps = {steps}', cell.source)
    client.NotebookClient(notebook, timeout=1800, resources={'metadata': {'path': str(tmp_path)}}).execute()
    printed = [out.text for cell in notebook.cells for out in cell.get('outputs', []) if out.output_type == 'stream']
    pictures = [out for cell in notebook.cells for out in cell.get('outputs', []) if 'image/png' in out.get('data', {})]
    assert len(pictures) >= 8
    (folder,) = tmp_path.glob('*/my-vae')
    assert {file.name for file in folder.iterdir()} >= {'README.md', 'config.json'}
    spread = float(re.search(r'spread of scaled latents ([\d.]+)', ''.join(printed))[1])
    assert spread == pytest.approx(1, abs=0.1)  # which is what the measured factor is for
    if steps is None:
        (line,) = re.findall(r"\{'start': ([\d.]+), 'plain': ([\d.]+), 'eq': ([\d.]+)\}", ''.join(printed))
        start, plain, eq = map(float, line)
        assert eq < 0.7 * min(start, plain)


def test_it_is_in_the_navigation():
    assert 'first_steps.md' in (ROOT / 'mkdocs.yml').read_text()
    assert f'(notebooks/{PATH.name})' in (ROOT / 'docs/first_steps.md').read_text()
