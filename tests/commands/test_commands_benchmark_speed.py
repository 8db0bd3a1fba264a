"""`tools/benchmark.py speed` and `measure_growth`: operations counted, shares of a measured peak, and how memory grows."""

import json
import re

import pytest
import torch

from eqzoo.benchmarks.growth import measure_growth
from eqzoo.benchmarks.speed import Work, matmul_peak, measure
from eqzoo.commands import benchmark as benchmark_latents
from eqzoo.commands import benchmark as benchmark_speed
from eqzoo.commands.benchmark import speed

CPU = torch.device('cpu')


def test_operations_of_forward_and_backward_are_counted():
    left, right = torch.randn(200, 300), torch.randn(300, 400, requires_grad=True)
    row = measure(Work('product', lambda: (left @ right).sum().backward(), 8), CPU, 1e9, rounds=2)
    seconds = 8 / row.images_per_second
    assert row.flops * seconds == pytest.approx(2 * 2 * 200 * 300 * 400)  # the product, and its gradient
    assert row.share == row.flops / 1e9
    assert row.peak_memory > 0


def test_a_matrix_product_is_near_the_peak():
    matrix = torch.randn(1024, 1024)
    peak = matmul_peak(CPU, torch.float32)
    row = measure(Work('product', lambda: matrix @ matrix, 1), CPU, peak, rounds=5)
    assert 0.1 < row.share < 3  # other work on the machine may take any part


def test_the_table_is_printed_and_written(tmp_path, monkeypatch, capsys):
    asked = {}

    def works(*, device, **options):
        asked.update(options)
        matrix = torch.randn(64, 64)
        yield Work('product', lambda: matrix @ matrix, 3)

    monkeypatch.setattr(benchmark_speed, 'works', works)
    speed(size=32, generator='B', rounds=1, out=str(tmp_path / 'speed.json'))
    assert asked == dict(size=32, batch_size=2, generator='B', precision='fp32', compiled=False)
    out = capsys.readouterr().out
    assert re.search(r'\nproduct +\S+ +\d+\.\d\d +\S+ +\d+\.\d%\n', out)
    written = json.loads((tmp_path / 'speed.json').read_text())
    assert written['card']['torch'] == torch.__version__
    assert [row['name'] for row in written['rows']] == ['product']


@pytest.mark.slow(reason='a minute: all hot paths of the published autoencoder')
def test_all_hot_paths_are_measured(capsys):
    speed(size=32, batch_size=1, rounds=1)
    rows = capsys.readouterr().out.rsplit('of peak\n', 1)[1].splitlines()
    names = [row[:18].strip() for row in rows]
    assert names == [
        'encode',
        'decode',
        'cache',
        'eq-step',
        'generator-step',
        'sample, 8 steps',
        'sample codes',
        'frechet',
    ]


def test_memory_grows_by_a_few_bytes_an_image():
    grown = measure_growth(200_000)
    assert grown.keys() == {'names', 'names, as a list', 'order', 'latent store'}
    bytes_each = {name: memory * 2**20 / 200_000 for name, (_, memory) in grown.items()}
    assert bytes_each['order'] < 20
    assert bytes_each['latent store'] < 30
    assert all(seconds > 0 for seconds, _ in grown.values())


def test_growth_prints_a_line_a_part(monkeypatch, capsys):
    monkeypatch.setattr(benchmark_latents, 'measure_growth', lambda count: {'names': (0.5, count / 2**20)})
    benchmark_latents.growth(most=10_000)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [['1,000', 'names', '0.500', '0.0', '1.0'], ['10,000', 'names', '0.500', '0.0', '1.0']]
