"""`tools/benchmark.py gpu`: the session's order, budget, file and failures; operations and shares of real parts."""

import json

import pytest
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from eqzoo.benchmarks.gpu import Part, Target, as_markdown, line, run_parts, share_of, target_lines, times_of
from eqzoo.benchmarks.gpu_parts import (
    TINY,
    GPUBench,
    Sizes,
    forward_operations,
    gpu_parts,
    half_scale_draw,
    run_times,
    step_operations,
    write_jpegs,
)
from eqzoo.benchmarks.measurements import Row, read_measurements
from eqzoo.commands.benchmark import machine
from eqzoo.commands.cli import run
from eqzoo.generators import DiffusionTransformer
from eqzoo.generators.base import count_macs
from eqzoo.registry import build

CPU = torch.device('cpu')


class Script:
    """Parts that note that they ran, and a clock that they move."""

    def __init__(self, **seconds):
        self.ran, self.now = [], 0.0
        self.parts = [
            Part(name, each, lambda rows, name=name: self.measure(name, rows)) for name, each in seconds.items()
        ]
        self.errors = {}

    def measure(self, name, rows):
        self.ran.append((name, sorted(rows)))
        self.now += {part.name: part.seconds for part in self.parts}[name]
        if name in self.errors:
            raise self.errors[name]
        return Row(name, {}, dict(median_s=0.5))

    def run(self, **options):
        lines = []
        options = dict(minutes=1, settings={'size': 1}) | options
        return run_parts(self.parts, **options, say=lines.append, clock=lambda: self.now), lines


def test_parts_run_in_order_and_each_result_is_written_at_once(tmp_path):
    script, file = Script(a=1, b=1), tmp_path / 'a.json'
    written = []
    second = script.parts[1]
    script.parts[1] = second._replace(
        measure=lambda rows: written.append(read_measurements(file).rows[0].name) or second.measure(rows)
    )
    session, _ = script.run(out=file)
    assert script.ran == [('a', []), ('b', ['a'])]
    assert written == ['a']
    assert [row.name for row in read_measurements(file).rows] == ['a', 'b']
    assert session.left == []
    assert session.rows[1].values == {'median_s': 0.5, 'took_s': 1.0}


def test_time_is_over_before_a_part_that_would_not_fit(tmp_path):
    script = Script(a=20, b=30, c=20, d=1)
    session, lines = script.run(out=tmp_path / 'a.json')
    assert [name for name, _ in script.ran] == ['a', 'b']
    assert session.left == ['c', 'd']
    assert lines[-1] == 'Time is over: c takes about 20 s. Left: c, d.'


@pytest.mark.parametrize(
    ('error', 'words'),
    [
        (
            torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20 GiB'),
            'OutOfMemoryError: CUDA out of memory.',
        ),
        (NotImplementedError('no kernel for this device'), 'NotImplementedError: no kernel for this device'),
        (torch._dynamo.exc.InternalTorchDynamoError('cannot be compiled'), 'InternalTorchDynamoError: cannot be'),
        (AssertionError(), 'AssertionError: '),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else None,
)
def test_a_part_that_fails_has_a_line_and_the_next_one_runs(tmp_path, error, words):
    script, file = Script(a=1, b=1), tmp_path / 'a.json'
    script.errors['a'] = error
    session, lines = script.run(out=file)
    assert [name for name, _ in script.ran] == ['a', 'b']
    assert session.rows[0].values['failed'].startswith(words)
    assert f'failed: {words}' in lines[1]
    assert read_measurements(file).rows[0].values['failed'].startswith(words)


def test_ctrl_c_ends_the_run(tmp_path):
    script = Script(a=1, b=1)
    script.errors['b'] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        script.run(out=tmp_path / 'a.json')
    assert [row.name for row in read_measurements(tmp_path / 'a.json').rows] == ['a']


def test_a_run_goes_on_with_its_file(tmp_path):
    file, first = tmp_path / 'a.json', Script(a=1, b=1, c=1)
    first.errors['b'] = RuntimeError('a bad moment')
    first.run(out=file, minutes=2.5 / 60)
    second = Script(a=1, b=1, c=1)
    session, lines = second.run(out=file, resume=True)
    assert [name for name, _ in second.ran] == ['b', 'c']  # what failed is tried again
    assert [row.name for row in session.rows] == ['a', 'b', 'c']
    assert 'failed' not in session.rows[1].values
    assert lines[1].endswith('(of the file)')
    with pytest.raises(ValueError, match='already exists; give --resume'):
        second.run(out=file)
    with pytest.raises(ValueError, match=r"is of gpu with {'size': 1}; expected gpu with {'size': 2}"):
        second.run(out=file, resume=True, settings={'size': 2})


def test_targets_take_the_best_of_their_rows():
    rows = [
        Row('eq-step sd fp32', {'released': 0.8, 'peak': 4.0}, {'share': 0.25}),
        Row('eq-step sd bf16', {'released': 0.2, 'peak': 2.5}, {'share': 0.4}),
        Row('step DiT', {}, {'failed': 'out of memory'}),
    ]
    targets = [
        Target('steps', 4, times_of('eq-step', 'released')),
        Target('share', 0.45, share_of('eq-step')),
        Target('DiT', 0.45, share_of('step DiT')),
    ]
    assert target_lines(rows, targets) == [
        'steps: 5.00 (wanted 4): met',
        'share: 0.40 (wanted 0.45): NOT met',
        'DiT: (wanted 0.45): not measured',
    ]
    assert line(rows[1]).split() == ['eq-step', 'sd', 'bf16', '40.0%', '5.00x', 'released']
    machine = dict(gpu='H200', processor='x', cores=16, torch='2.11', python='3.12')
    page = as_markdown(type('Session', (), dict(rows=rows, left=['fid'])), machine).splitlines()
    assert page[0] == 'H200, processor x, cores 16, torch 2.11, python 3.12:'
    assert '| eq-step sd bf16 |  |  |  |  | 40.0% | 5.00x released |' in page
    assert '| step DiT |  |  |  |  |  | failed: out of memory |' in page
    assert page[-1] == 'There was no time for: fid.'


def test_operations_of_dit_xl_2_are_those_of_the_closed_form():
    """T tokens of width D, L blocks; a product of (m, k) by (k, n) has 2 m k n operations."""
    tokens, width, depth, channels = 256, 1152, 28, 4
    with torch.device('meta'):
        network = DiffusionTransformer('XL', 2)
    block = tokens * width * (3 + 1 + 4 + 4) * width + 2 * tokens**2 * width + width * 6 * width
    embedding = tokens * (4 * channels) * width
    time = 256 * width + width**2
    head = width * 2 * width + tokens * width * (4 * 2 * channels)
    forward = 2 * (depth * block + embedding + time + head)
    assert forward_operations(network) == forward
    assert forward_operations(network) == 2 * count_macs(network)  # by another counter
    # backward: a gradient of each factor, but of the latents and of the sines and cosines of time
    inputs = 2 * embedding + 2 * 256 * width
    assert step_operations(network) == 3 * forward - inputs
    assert step_operations(network) / 1e9 == pytest.approx(6 * 118.6, rel=1e-3)  # the paper's multiply-accumulates


def test_operations_of_repa_have_the_projector():
    options = dict(latent_size=4, patch_size=2)
    plain = build(dict(type='DiffusionTransformer', size=(2, 32, 2), learn_sigma=False, **options))
    aligned = build(
        dict(type='AlignedTransformer', size=(2, 32, 2), tap=1, projector_width=16, feature_dims=(8,), **options)
    )
    projector = 2 * 4 * (32 * 16 + 16 * 16 + 16 * 8)  # 4 tokens
    assert forward_operations(aligned) == forward_operations(plain) + projector
    assert step_operations(aligned) == step_operations(plain) + 3 * projector


def test_runs_are_timed_one_by_one():
    calls = []
    seconds = run_times(lambda: calls.append(1), CPU, 3)
    assert len(calls) == len(seconds) == 3
    assert min(seconds) > 0


def test_a_matrix_product():
    row = GPUBench(TINY, CPU).matmul('fp32', {})
    values = row.values
    assert row.name == 'matmul fp32'
    assert values['flops'] == pytest.approx(2 * values['side'] ** 3 / values['median_s'])
    assert values['side'] in TINY.matrices


PEAK = {f'matmul {name}': Row(f'matmul {name}', {}, dict(flops=1e12)) for name in ('bf16', 'fp16', 'tf32', 'fp32')}


def check_row(row, images, operations=None):
    """Compare the numbers of a row with each other."""
    values = row.values
    assert values['images_per_s'] == pytest.approx(images / values['median_s'])
    assert values['flops'] == pytest.approx(values['operations'] / values['median_s'])
    assert values['share'] == pytest.approx(values['flops'] / 1e12)
    assert 0 < values['share'] <= 1
    assert row.ratios['peak'] == pytest.approx(1 / values['share'])
    assert values['least_s'] <= values['median_s'] <= values['most_s']
    assert values['peak_gib'] > 0
    if operations is not None:
        assert values['operations'] == operations


def find(name, sizes=TINY):
    return next(part for part in gpu_parts(sizes, CPU) if part.name == name)


def test_coding_counts_what_the_layers_do():
    row = find('encode 32 fp32').measure(PEAK)
    autoencoder = build(dict(type='KLAutoencoder', **TINY.autoencoder))
    operations = 0

    def count(layer, inputs, output):
        nonlocal operations
        weights = layer.weight.numel()
        # each output of a convolution takes a product and a sum for each weight of its filter
        operations += (
            2 * weights * (output[0, 0].numel() if output.ndim == 4 else output[0].numel() // output.shape[-1])
        )

    for layer in autoencoder.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(count)
    autoencoder.encode(torch.zeros(1, 3, 32, 32))
    operations += 2 * 2 * 16**2 * 8  # attention among 4 x 4 places of 8 channels
    check_row(row, images=2, operations=2 * operations)


def test_the_eq_step_is_put_beside_the_released_one():
    """The released step runs the autoencoder forward a second time, for the discriminator."""
    bench = GPUBench(TINY, CPU)
    released = bench.eq_step('sd', 'released').measure(PEAK)
    ours = bench.eq_step('sd', 'fp32').measure({**PEAK, released.name: released})
    for row in (released, ours):
        check_row(row, images=2)
    assert ours.ratios['released'] == pytest.approx(ours.values['median_s'] / released.values['median_s'])
    autoencoder = build(dict(type='KLAutoencoder', **TINY.autoencoder))
    images = torch.zeros(1, 3, 32, 32)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        autoencoder.decode(torch.nn.functional.interpolate(autoencoder.encode(images).mean, scale_factor=0.5))
    more = (released.values['operations'] - ours.values['operations']) / 2
    assert more == counter.get_total_flops()


def test_the_step_that_is_measured_scales_by_half():
    model = GPUBench(TINY, CPU)._eq_training('sd', 'fp32')[0]
    draw = model.objective.sample(half_scale_draw(model, 32).shared(), (4, 4))
    assert draw.branch == 'equivariance'
    assert tuple(map(float, draw.params[0])) == (0.5, 0.5)


@pytest.mark.parametrize('name', ['DiT', 'SiT', 'REPA'])
def test_generator_steps(name):
    row = GPUBench(TINY, CPU).generator_step(name, 'fp32').measure(PEAK)
    network = GPUBench(TINY, CPU)._generator_training(name, 'fp32', 1)[0].generator.network
    check_row(row, images=4, operations=4 * step_operations(network))


def test_sampling_counts_each_prediction():
    network = GPUBench(TINY, CPU)._generator_training('SiT', 'bf16', 1)[0].generator.network
    once = 2 * forward_operations(network)  # a batch of 2
    check_row(find('sample SDE 3 steps').measure(PEAK), images=2, operations=3 * once)
    check_row(find('sample Euler 2 steps, guided').measure(PEAK), images=2, operations=2 * 2 * once)


def test_caching_is_put_beside_a_batch_of_1():
    sizes = Sizes(**{**vars(TINY), 'autoencoder': {**TINY.autoencoder}})
    single = find('cache, files, batch 1', sizes).measure(PEAK)
    check_row(single, images=2)
    whole = find('cache, files', sizes).measure({**PEAK, single.name: single})
    check_row(whole, images=8, operations=4 * single.values['operations'])
    an_image = whole.values['median_s'] / 8, single.values['median_s'] / 2
    assert whole.ratios['batch 1'] == pytest.approx(an_image[0] / an_image[1])
    check_row(find('cache, memory', sizes).measure(PEAK), images=4)


def test_fid_is_put_beside_its_network():
    network = find('fid, network').measure(PEAK)
    check_row(network, images=4)
    whole = find('fid, files').measure({**PEAK, network.name: network})
    check_row(whole, images=8, operations=2 * network.values['operations'])
    assert whole.ratios['network'] == pytest.approx(network.values['images_per_s'] / whole.values['images_per_s'])
    assert whole.values['seconds_of_50000'] == pytest.approx(50_000 / whole.values['images_per_s'])


def test_files_are_jpegs_of_their_size(tmp_path):
    write_jpegs(tmp_path, 2, 3, 48)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 6
    with Image.open(files[0]) as image:
        assert image.size == (48, 48)
    assert files[0].read_bytes() == files[2].read_bytes() != files[3].read_bytes()


def test_names_of_parts_are_unique_and_the_most_important_come_first():
    names = [part.name for part in gpu_parts(Sizes(), torch.device('cuda'))]
    assert len(set(names)) == len(names)
    assert names[:4] == ['matmul bf16', 'matmul fp16', 'matmul tf32', 'matmul fp32']
    place = {name: names.index(name) for name in names}
    assert place['eq-step sd released'] < place['eq-step sd bf16'] < place['eq-step sdxl released']
    assert place['step DiT-XL/2 bf16'] < place['step SiT-XL/2 bf16'] < place['step REPA-XL/2 bf16']
    assert place['cache, files, batch 1'] < place['cache, files']
    assert 'encode 512 bf16 compile channels-last' in names


def test_the_command(tmp_path, capsys):
    """As typed: the first parts, within a hundredth of a minute."""
    file, page = tmp_path / 'a.json', tmp_path / 'a.md'
    words = ['--smoke', '--minutes', '0.15', '--out', str(file), '--markdown', str(page)]
    run(machine.gpu, words)
    printed = capsys.readouterr().out
    assert 'matmul bf16' in printed
    assert 'Time is over' in printed
    assert "EQ step, times the released code's speed: (wanted 4): not measured" in printed
    content = json.loads(file.read_text())
    assert content['benchmark'] == 'gpu'
    assert content['settings'] == {'device': 'cpu', 'smoke': True}
    assert '| matmul bf16 |' in page.read_text()


def test_mistakes_of_the_command(monkeypatch):
    with pytest.raises(ValueError, match='--resume: of which file'):
        machine.gpu(resume=True, smoke=True)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ValueError, match="device: got 'cuda', but torch .* sees no GPU here"):
        machine.gpu()
