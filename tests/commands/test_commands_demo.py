"""`tools/demo.py`: its images are divided, and found wanting, before anything is trained."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from eqzoo.commands import demo as module
from eqzoo.commands.cli import run
from eqzoo.commands.demo import demo
from eqzoo.config import load_config
from eqzoo.data import ImageFolder


def save_images(folder, count):
    folder.mkdir(exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f'{number:03d}.png')
    return folder


@pytest.fixture
def commands(monkeypatch):
    """The commands that the demo would run."""
    called = []

    def fake(title, command, config, work_dir, steps, overrides):
        called.append((command, config, overrides))
        if command == 'test':
            work_dir.mkdir(parents=True, exist_ok=True)
            (work_dir / 'metrics.json').write_text(json.dumps(dict(metrics=dict(psnr=20.0))))

    monkeypatch.setattr(module, '_run', fake)
    monkeypatch.setattr(module, '_draw', lambda folder, configs, data: None)
    return called


def datasets_of(overrides):
    found = {}
    for override in overrides:
        loader, _, dataset = override.partition('.dataset=')
        if dataset:
            found[loader] = ImageFolder(**{k: v for k, v in eval(dataset).items() if k != 'type'})
    return found


@pytest.mark.parametrize(('count', 'sizes'), [(20, (17, 1, 2)), (49, (43, 2, 4)), (51, (49, 1, 1)), (80, (68, 4, 8))])
def test_images_are_divided_among_training_validation_and_test(count, sizes, tmp_path, commands):
    images = save_images(tmp_path / 'images', count)
    run(demo, ['--images', str(images), '--size', '32', '--work-dir', str(tmp_path / 'work')])
    assert [command for command, *_ in commands] == ['train', 'test', 'train', 'test']
    for *_, overrides in commands:
        data = datasets_of(overrides)
        parts = [data[f'{name}_dataloader'].names for name in ('train', 'val', 'test')]
        assert tuple(map(len, parts)) == sizes
        assert sorted(name for part in parts for name in part) == [f'{number:03d}.png' for number in range(count)]


def test_every_number_of_images_from_twenty_on_leaves_some_for_each_part(tmp_path):
    for count in range(20, 400):
        val, test = module._held_out(count, 'images')
        assert 0 < round(val * count) < round(test * count) < count


def test_too_few_and_unreadable_images_are_told_before_training(tmp_path, commands):
    images = save_images(tmp_path / 'images', 19)
    words = ['--images', str(images), '--size', '32', '--work-dir', str(tmp_path / 'work')]
    with pytest.raises(SystemExit, match='images: 19 images; the demo needs 20 or more'):
        run(demo, words)
    save_images(images, 20)
    for name in ImageFolder(images, 32, part=(0.9, 1.0)).names:
        (images / name).write_bytes(b'')
    with pytest.raises(SystemExit, match=r'none of 2 images can be read: \d+.png \(the file is empty\), \d+.png'):
        run(demo, words)
    assert commands == []


def test_without_a_path_it_is_the_photographs_and_the_autoencoder_that_come_with_eqzoo(tmp_path, commands):
    run(demo, ['--work-dir', str(tmp_path / 'work')])
    assert [command for command, *_ in commands] == ['train', 'test', 'train', 'test']
    for command, config, overrides in commands:
        loaded = load_config(config, overrides)
        assert loaded.train_dataloader.dataset == dict(
            type='Clothes', size=64, part=(0.0, 0.82), crop='random_square', flip=True
        )
        held_out = [loaded[f'{part}_dataloader'].dataset for part in ('val', 'test')]
        assert held_out == [dict(type='Clothes', size=64, part=part) for part in ((0.82, 0.85), (0.85, 1.0))]
        if command == 'train':
            assert loaded.model.autoencoder.weights == 'eqzoo://clothes-f8'
    start = load_config('configs/demo/photographs_pretrain.py')
    assert start.train_dataloader.dataset == loaded.train_dataloader.dataset  # none of its images is tested


def test_the_generators_autoencoders_are_of_shapes(tmp_path, monkeypatch, commands):
    monkeypatch.chdir(tmp_path)
    run(demo, ['--images', 'shapes'])
    assert [command for command, *_ in commands] == ['train', 'train', 'test', 'train', 'test']
    weights = [load_config(config, overrides).model.autoencoder.weights for _, config, overrides in commands[1::2]]
    assert weights == ['work_dirs/demo/pretrain/iter_1200.pth'] * 2
    assert {load_config(config, overrides).test_dataloader.dataset.type for _, config, overrides in commands} == {
        'Shapes'
    }
    generator = load_config('configs/dit/dit_tiny_shapes.py')
    assert (tmp_path / generator.model.autoencoder.weights).parent.parent == tmp_path / 'work_dirs/demo'
    assert (tmp_path / 'work_dirs/demo/comparison.json').is_file()


@pytest.mark.parametrize(
    ('override', 'option'),
    [
        ('work_dir=mine', '--work-dir'),
        ('resume=auto', 'trains from its start again'),
        ('train_cfg.max_iters=10', '--steps and --pretrain-steps'),
        ('train_cfg.val_interval=10', '--steps and --pretrain-steps'),
        ('model.autoencoder.weights=mine.pth', '--images shapes'),
    ],
)
def test_keys_that_the_demo_sets_are_refused(override, option, tmp_path, commands, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f'{re.escape(override)}: the demo sets this key itself .*{option}'):
        demo(overrides=[override])
    assert commands == []
    assert list(tmp_path.iterdir()) == []
