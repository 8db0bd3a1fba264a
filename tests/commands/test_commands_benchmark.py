"""`tools/benchmark.py`: both ways of each comparison compute the same, costs are measured, and tables are printed."""

import copy
import json
import re

import pytest
import torch
from PIL import Image

from eqzoo.benchmarks import memory
from eqzoo.benchmarks.autoencoders import compare_eq_steps, released_step
from eqzoo.benchmarks.evaluation import compare_pipelines
from eqzoo.benchmarks.generators import PlainDiffusionTransformer, compare_sampling
from eqzoo.benchmarks.growth import measure_growth, scoring_cost
from eqzoo.benchmarks.measure import alternate, timed
from eqzoo.benchmarks.measurements import read_measurements
from eqzoo.benchmarks.memory import MemoryRow, memory_rows, without_files
from eqzoo.benchmarks.speed import Work, matmul_peak, measure
from eqzoo.commands.benchmark import data, inference, machine, metrics, startup, training
from eqzoo.commands.cli import run
from eqzoo.config import load_config
from eqzoo.data import Shapes, collate
from eqzoo.engine import StepRandomness, shrink
from eqzoo.engine.memory import StepMemory
from eqzoo.engine.runner import build_optimizers
from eqzoo.generators import DiffusionTransformer
from eqzoo.machine import hardware
from eqzoo.registry import build
from eqzoo.vision import EfficientNetLite0

CPU = torch.device('cpu')


def test_ways_take_turns():
    order = []
    seconds = alternate({name: lambda name=name: order.append(name) for name in 'ab'}, 3)
    assert order == ['a', 'b'] * 3
    assert [len(each) for each in seconds.values()] == [3, 3]
    elapsed, result = timed(lambda: 7)
    assert elapsed > 0
    assert result == 7


def test_the_machine_is_described():
    machine = hardware()
    assert machine['processor']
    assert machine['threads'] == torch.get_num_threads()
    assert torch.__version__.startswith(machine['torch'].split('+')[0])


@pytest.fixture
def setup():
    config = shrink(load_config('configs/eqvae/sd_rot_scale.py'))
    config.model.micro_batch_size = None
    config.model.reconstruction_loss.pop('perceptual')
    model = build(config.model).train()
    data = Shapes(num_images=2, size=64)
    return model, build_optimizers(model, config), collate([data[0], data[1]]), config


def test_with_one_draw_the_released_step_trains_the_autoencoder_as_ours_does(setup):
    """So both do the same work; only the discriminator's pass differs."""
    ours, optimizers, batch, config = setup
    theirs = copy.deepcopy(ours)
    step = StepRandomness(0, 2)
    ours.train_step(batch, optimizers, step)
    released_step(theirs, batch, build_optimizers(theirs, config), step, StepRandomness(0, 3))
    for name, value in ours.autoencoder.state_dict().items():
        assert torch.equal(theirs.autoencoder.state_dict()[name], value), name


def test_both_steps_are_measured(setup):
    model, optimizers, batch, _ = setup
    costs = compare_eq_steps(model, optimizers, batch, rounds=2)
    assert list(costs) == ['eqzoo', 'released']
    assert all(cost.images_per_second > 0 and cost.peak_memory > 0 for cost in costs.values())


def test_a_config_without_a_discriminator_is_refused():
    with pytest.raises(SystemExit, match='has no model.adversarial_loss'):
        run(training.eq_step, ['configs/demo/plain.py'])


def test_the_released_step_includes_the_codebook_loss():
    config = shrink(load_config('configs/eqvae/vqgan_rot_scale.py'))
    config.model.reconstruction_loss.pop('perceptual')
    ours = build(config.model).train()
    theirs = copy.deepcopy(ours)
    data = Shapes(num_images=2, size=64)
    batch = collate([data[0], data[1]])
    step = StepRandomness(0, 2)
    ours.train_step(batch, build_optimizers(ours, config), step)
    released_step(theirs, batch, build_optimizers(theirs, config), step, StepRandomness(0, 3))
    for name, value in ours.autoencoder.state_dict().items():
        assert torch.equal(theirs.autoencoder.state_dict()[name], value), name


def test_coding_costs_are_printed_as_ratios(capsys):
    run(inference.coding, ['configs/zoo/autoencoders/taesd.py', '--size', '16', '--rounds', '1'])
    header, names, row = capsys.readouterr().out.splitlines()
    assert header.startswith('16 px, batch 1')
    assert names.split() == ['autoencoder', 'parameters', 'encode', 'GiB', 'decode', 'GiB']
    assert row.split()[:2] == ['taesd', '2,445,063']
    ratios = [float(ratio) for ratio in re.findall(r'\((\d+\.\d+)x\)', row)]
    assert len(ratios) == 2
    assert min(ratios) > 0


def test_frechet_distances_agree(capsys):
    metrics.frechet(features=48, images=1000, rounds=1)
    printed = capsys.readouterr().out
    assert 'scipy sqrtm' in printed
    assert float(printed.split('values differ by ')[1].split()[0]) < 1e-9


def test_rfid_is_the_same_streamed_and_through_pngs(capsys):
    metrics.rfid(images=8, size=32)
    assert re.search(
        r'ratio: [\d.]+x; with the images measured before \(reference=…\): [\d.]+x', capsys.readouterr().out
    )
    extractor, generator = EfficientNetLite0(), torch.Generator().manual_seed(0)
    batch = torch.randint(0, 256, (6, 3, 32, 32), generator=generator, dtype=torch.uint8)
    values = [value for _, value in compare_pipelines(extractor, [(batch, batch.flip(3))]).values()]
    # batches of 50 round differently than those of 3
    assert values == pytest.approx([values[0]] * 3, rel=1e-4)
    assert values[0] > 1


def test_the_plain_transformer_is_the_same_function():
    torch.manual_seed(0)
    ours = DiffusionTransformer((2, 32, 2), 2, latent_size=8)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    plain = PlainDiffusionTransformer((2, 32, 2), 2, latent_size=8)
    plain.load_state_dict(ours.state_dict())
    inputs = torch.randn(3, 4, 8, 8), torch.tensor([0.0, 500.0, 999.0]), torch.tensor([0, 1000, 7])
    torch.testing.assert_close(ours(*inputs), plain(*inputs))
    assert not plain.blocks[0].attn.fused_attn


def test_the_generator_benchmark_prints_a_ratio(capsys):
    training.generator_step(size='S', patch=8, latent_size=8, batch_size=1, rounds=1)
    out = capsys.readouterr().out
    assert re.search(r'DiT-S/8, batch 1, cpu, \d+ threads, eqzoo in fp32\n', out)
    ratio, difference = re.search(r'ratio: (\S+)x, losses differ by (\S+) relatively', out).groups()
    assert float(ratio) > 0
    assert float(difference) < 1e-5


def test_both_ways_of_sampling_draw_the_same_codes():
    """With one class, whose first step is shared, and with many."""
    for classes in (1, 50):
        options = dict(grid=4, num_classes=classes, batch_size=6, steps=3, rounds=1)
        speeds, same = compare_sampling((2, 32, 2), **options, device=torch.device('cpu'))
        assert speeds.keys() == {'eqzoo', 'plain'}
        assert same == 1


def test_the_sampling_benchmark_prints_a_ratio(capsys, monkeypatch):
    monkeypatch.setattr(
        'eqzoo.benchmarks.generators.compare_sampling', lambda *_, **__: ({'eqzoo': 3.0, 'plain': 2.0}, 1.0)
    )
    inference.sampling(grid=8, steps=4)
    out = capsys.readouterr().out
    assert out.startswith('MaskGIT-base, 8 x 8 codes, 1000 classes, batch 2, 4 steps, cpu')
    assert out.endswith('ratio: 1.50x, 100.00% of the codes are the same\n')


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


def test_the_speed_table_is_printed_and_written(tmp_path, monkeypatch, capsys):
    chosen = {}

    def hot_paths(*, device, **options):
        chosen.update(options)
        matrix = torch.randn(64, 64)
        yield Work('product', lambda: matrix @ matrix, 3)

    monkeypatch.setattr('eqzoo.benchmarks.speed.hot_paths', hot_paths)
    machine.speed(size=32, generator='B', rounds=1, out=str(tmp_path / 'speed.json'))
    assert chosen == dict(size=32, batch_size=2, generator='B', precision='fp32', compiled=False)
    out = capsys.readouterr().out
    assert re.search(r'\nproduct +\S+ +\d+\.\d\d +\S+ +\d+\.\d%\n', out)
    written = json.loads((tmp_path / 'speed.json').read_text())
    assert written['settings'] == dict(size=32, batch_size=None, generator='B', precision=None, compile=False, rounds=1)
    (row,) = written['rows']
    assert row['name'] == 'product'
    assert row['ratios']['time at peak'] == pytest.approx(1 / row['values']['share'])


@pytest.mark.slow(reason='ten seconds of CPU: a dozen steps of fake tensors')
def test_the_memory_table_is_printed_and_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, '_BATCHES', (1, 8))
    training.memory('configs/dit/dit_tiny_shapes.py', overrides=[], batch_size=4, out=str(tmp_path / 'memory.json'))
    rows = read_measurements(tmp_path / 'memory.json').rows
    names = [f'{name}, {precision}' for precision in ('fp32', 'bf16') for name in ('whole', 'checkpointing')]
    assert [row.name for row in rows] == names
    whole, checkpointing = (row.values for row in rows[:2])
    assert checkpointing['each'] < whole['each']
    for row in rows:
        values = row.values
        assert values['peak'] == sum(values['parts'].values())
        assert abs(values['fixed'] + 8 * values['each'] - values['peaks']['8']) < 8
        assert values['peaks']['1'] < values['peak'] < values['peaks']['8']
        assert row.ratios == {'peak': values['peak'] / whole['peak']}
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[-4:] == ['GiB', 'at', 'the', 'peak']
    assert len(lines) == 2 + 4 + 1


def test_the_largest_batch_leaves_a_gib():
    gib = 2**30
    row = MemoryRow('whole', 'fp32', StepMemory(0, {}), {1: 3 * gib, 8: 10 * gib, 64: 122 * gib})
    assert (row.fixed, row.each) == (-6 * gib, 2 * gib)
    assert [row.largest_batch(each * gib) for each in (3, 4, 8, 11, 13, 124)] == [0, 1, 5, 8, 9, 64]


def test_options_of_autoencoders_change_the_model(monkeypatch):
    monkeypatch.setattr(memory, '_BATCHES', (1, 2))
    config = shrink(load_config('configs/eqvae/sd_rot_scale.py'))
    names = ('whole', 'checkpointing', 'both, no GAN, no LPIPS')
    rows = {(row.name, row.precision): row for row in memory_rows(config, 64, names=names)}
    assert len(rows) == 6
    peaks = {key: row.memory.peak for key, row in rows.items()}
    assert peaks['both, no GAN, no LPIPS', 'fp32'] < peaks['checkpointing', 'fp32'] < peaks['whole', 'fp32']
    without = rows['both, no GAN, no LPIPS', 'fp32'].memory.parts
    assert 'discriminator' not in without
    assert without.get('frozen networks', 0) < 2**20  # no VGG


def test_weights_of_files_are_replaced():
    config = load_config('configs/repa/repa_xl2_sd_ft_ema.py').model.to_dict()
    config['autoencoder']['weights'] = config['generator']['network']['weights'] = 'nowhere.pth'
    plain = without_files(config)
    assert plain['autoencoder']['weights'] is plain['generator']['network']['weights'] is None
    assert without_files(dict(type='LPIPS', net='vgg')) == dict(type='LPIPS', net='vgg', weights='random')
    assert without_files([dict(type='Rotate')]) == [dict(type='Rotate')]


@pytest.mark.slow(reason='half a minute: two processes begin')
def test_both_ways_of_averaging_train_the_same(capsys):
    training.gradients('configs/demo/rot_scale.py', overrides=[], size=32, rounds=1)
    lines = capsys.readouterr().out.splitlines()
    after, during = (line.split()[-5:] for line in lines[2:4])
    assert after[1] == during[1]  # MiB sent
    assert float(during[3]) < float(after[3])  # MiB copied
    assert lines[-1] == 'largest difference of the weights: 0.0e+00'


@pytest.mark.slow(reason='a minute: all hot paths of the published autoencoder')
def test_all_hot_paths_are_measured(capsys):
    machine.speed(size=64, batch_size=1, rounds=1)  # the discriminator needs 24 pixels at a scale of 3/8
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


def test_memory_grows_by_a_few_bytes_for_each_image():
    grown = measure_growth(200_000)
    assert grown.keys() == {
        'names',
        'names, as a list',
        'order',
        'latent store',
        '1,000 random latents',
        'index on the disk',
    }
    bytes_each = {name: memory * 2**20 / 200_000 for name, (_, memory) in grown.items()}
    assert bytes_each['order'] < 20
    assert bytes_each['latent store'] < 30
    assert 0 < bytes_each['index on the disk'] < 1
    assert all(seconds > 0 for name, (seconds, _) in grown.items() if name != 'index on the disk')


def test_a_large_folder_is_listed_once():
    grown = measure_growth(20_000, with_files=True)
    first, later = (grown[f'folder, {each} start'][0] for each in ('first', 'later'))
    assert min(first, later) > 0


@pytest.mark.slow(reason='several seconds: thousands of images')
def test_scoring_takes_constant_memory():
    (_, few), (_, many) = scoring_cost(512), scoring_cost(8192)
    assert (
        many - few < 10
    )  # MiB; the features alone would be 15, those of a distance that keeps them: 4 bytes · 512 each


def test_growth_prints_a_line_for_each_part(monkeypatch, capsys):
    costs = lambda count, with_files: {'names': (0.5, 2 * count / 1000)}  # noqa: E731
    monkeypatch.setattr('eqzoo.benchmarks.growth.measure_growth', costs)
    startup.growth(most=10_000, samples=0)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [
        ['1,000', 'names', '0.500', '2.0', '2097.2'],
        ['10,000', 'names', '0.500', '20.0', '2097.2', '0.10x', '1.00x'],
    ]


def test_decoding_is_compared_with_pillow_and_with_the_loader(tmp_path, capsys):
    folder = tmp_path / 'photographs'
    folder.mkdir()
    for index in range(3):
        pixels = Shapes(3, 48)[index]['image'].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f'{index}.jpg', quality=90)
    run(data.decoding, [str(folder), '--images', '3', '--sizes', '64', '--rounds', '1'])
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if line.endswith('%')]
    assert {row[-4] for row in rows} >= {'Pillow', 'eqzoo', 'OpenCV'}
    assert all(row[-1] == '100%' for row in rows)
    assert [float(row[-2]) for row in rows if row[-4] == 'Pillow'] == [1.0] * 4
    assert (
        len(re.findall(r"decoding='scaled', cropped to (?:32|16) px: [\d.]+ of the time, PSNR [\d.]+ dB", printed)) == 2
    )
    assert re.search(r'loader beside decoding alone, 64 px: exact [\d.]+, random_square [\d.]+', printed)


def test_metric_networks_are_compared_with_their_packages(tmp_path, capsys):
    for index in range(4):
        Image.fromarray(Shapes(4, 32)[index]['image'].permute(1, 2, 0).numpy()).save(tmp_path / f'{index}.png')
    run(metrics.networks, [str(tmp_path), '--images', '2', '--size', '32', '--rounds', '1'])
    printed = capsys.readouterr().out
    differences = [float(line.split()[-1]) for line in printed.splitlines() if line.startswith(('Inception', 'LPIPS'))]
    assert len(differences) == 2
    assert max(differences) < 1e-5  # 0 on some processors
    plain, reduced = map(
        float, re.search(r'fd_effnet_lite0 +([\d.]+) in float32, ([\d.]+) in bfloat16', printed).groups()
    )
    assert reduced == pytest.approx(plain, rel=0.05)
    assert reduced != plain


def test_loading_names_the_libraries_that_it_lacks(monkeypatch):
    monkeypatch.setattr(data, 'find_spec', lambda name: None if name in ('webdataset', 'pyarrow') else name)
    with pytest.raises(SystemExit, match=r"needs webdataset and pyarrow, .*'eqzoo\[webdataset,hub,parquet\]'"):
        run(data.loading, [])
