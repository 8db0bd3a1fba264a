"""The benchmark's two kinds of step."""

import copy
import re

import pytest
import torch

from eqzoo.benchmarks.autoencoders import compare_eq_steps, released_step
from eqzoo.benchmarks.evaluation import compare_pipelines
from eqzoo.commands.benchmark import coding, eq_step, frechet, rfid
from eqzoo.commands.cli import run
from eqzoo.config import load_config
from eqzoo.data import Shapes, collate
from eqzoo.engine import StepRandomness, shrink
from eqzoo.engine.runner import build_optimizers
from eqzoo.registry import build
from eqzoo.vision import EfficientNetLite0


@pytest.fixture
def setup():
    config = shrink(load_config('configs/eqvae/sd_rot_scale.py'))
    config.model.micro_batch_size = None
    config.model.reconstruction_loss.pop('perceptual')
    model = build(config.model).train()
    data = Shapes(num_images=2, size=64)
    return model, build_optimizers(model, config), collate([data[0], data[1]]), config


def test_with_one_draw_the_released_step_trains_the_autoencoder_as_ours_does(setup):
    """So what is timed is the same work; only the discriminator's pass differs."""
    ours, optimizers, batch, config = setup
    theirs = copy.deepcopy(ours)
    step = StepRandomness(0, 2)
    ours.train_step(batch, optimizers, step)
    released_step(theirs, batch, build_optimizers(theirs, config), step, StepRandomness(0, 3))
    for name, value in ours.autoencoder.state_dict().items():
        assert torch.equal(theirs.autoencoder.state_dict()[name], value), name


def test_both_are_measured(setup):
    model, optimizers, batch, _ = setup
    costs = compare_eq_steps(model, optimizers, batch, rounds=2)
    assert list(costs) == ['eqzoo', 'released']
    assert all(cost.images_per_second > 0 and cost.peak_memory > 0 for cost in costs.values())


def test_a_config_without_a_discriminator_is_refused():
    with pytest.raises(SystemExit, match='has no model.adversarial_loss'):
        run(eq_step, ['configs/demo/plain.py'])


def test_the_released_step_pays_for_a_codebook_too():
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
    run(coding, ['configs/zoo/autoencoders/taesd.py', '--size', '16', '--rounds', '1'])
    header, names, row = capsys.readouterr().out.splitlines()
    assert header.startswith('16 px, batch 1')
    assert names.split() == ['autoencoder', 'parameters', 'encode', 'GiB', 'decode', 'GiB']
    assert row.split()[:2] == ['taesd', '2,445,063']
    ratios = [float(ratio) for ratio in re.findall(r'\((\d+\.\d+)x\)', row)]
    assert len(ratios) == 2
    assert min(ratios) > 0


def test_frechet_distances_agree(capsys):
    frechet(features=48, images=1000, rounds=1)
    printed = capsys.readouterr().out
    assert 'scipy sqrtm' in printed
    assert float(printed.split('values differ by ')[1].split()[0]) < 1e-9


def test_rfid_is_the_same_streamed_and_through_pngs(capsys):
    rfid(images=8, size=32)
    assert re.search(
        r'ratio: [\d.]+x; with the images measured before \(reference=…\): [\d.]+x', capsys.readouterr().out
    )
    extractor, generator = EfficientNetLite0(), torch.Generator().manual_seed(0)
    batch = torch.randint(0, 256, (6, 3, 32, 32), generator=generator, dtype=torch.uint8)
    values = [value for _, value in compare_pipelines(extractor, [(batch, batch.flip(3))]).values()]
    # batches of 50 round differently than those of 3
    assert values == pytest.approx([values[0]] * 3, rel=1e-4)
    assert values[0] > 1
