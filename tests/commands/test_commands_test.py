"""`tools/test.py`: the metrics file, the weights that are evaluated, and missing files."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from eqzoo.commands.cli import run
from eqzoo.commands.convert import convert
from eqzoo.commands.test import test as evaluate_config
from eqzoo.registry import build

CONFIG = 'configs/demo/plain.py'
TINY = 'model.autoencoder.block_out_channels=(8, 8, 8)'
FEW = 'test_dataloader.dataset.num_images=40'
KEYS = [
    'psnr',
    'ssim',
    'eq_err/rotation',
    'eq_err_paper/rotation',
    'eq_err/scale',
    'eq_err_paper/scale',
    'latent_std',
    'latent_kurtosis',
]


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    autoencoder = build(dict(type='KLAutoencoder', block_out_channels=(8, 8, 8), layers_per_block=1, norm_num_groups=8))
    torch.save(autoencoder.state_dict(), tmp_path / 'weights.pth')
    return tmp_path / 'weights.pth'


@pytest.fixture
def photographs(tmp_path):
    """Five pictures of different kinds, one of them broken."""
    folder = tmp_path / 'photographs'
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 256, (5, 40, 50, 3), dtype=np.uint8)
    for index, pixels in enumerate(values[:4]):
        Image.fromarray(pixels).save(folder / f'{index}.png')
    Image.fromarray(values[4]).convert('CMYK').save(folder / 'cmyk.jpg')
    (folder / 'broken.png').write_bytes(b'no image')
    return folder


def evaluate(weights, tmp_path, *words):
    return run(evaluate_config, [CONFIG, str(weights), f'work_dir={tmp_path}/work', TINY, FEW, *words])


def test_any_folder_of_images(weights, photographs, tmp_path, capsys):
    dataset = dict(type='ImageFolder', root=str(photographs), size=32)
    result = evaluate(weights, tmp_path, f'test_dataloader.dataset={dataset!r}')
    assert list(result['metrics']) == KEYS
    assert json.loads((tmp_path / 'work' / 'metrics.json').read_text()) == result
    card = result['card']
    assert card['num_images'] == 5
    assert card['unreadable'] == ['broken.png']
    assert card['data']['kind'] == 'ImageFolder'
    assert len(card['weights']['sha256']) == 64
    assert card['evaluators']['EquivarianceError']['cases'] == {
        'rotation': ['90', '180', '270'],
        'scale': ['0.25', '0.5', '0.75'],
    }
    assert result['metrics']['eq_err/scale'] == pytest.approx(
        np.mean([result['cases'][f'eq_err/scale/{s}'] for s in (0.25, 0.5, 0.75)])
    )
    with Image.open(tmp_path / 'work' / 'test.png') as grid:
        assert grid.width > 400
    printed = capsys.readouterr().out
    assert all(name in printed for name in KEYS)


def test_a_zip_gives_the_folders_numbers(weights, photographs, tmp_path):
    shutil.make_archive(str(tmp_path / 'photographs'), 'zip', photographs)
    results = [
        evaluate(weights, tmp_path, f'test_dataloader.dataset={dict(type="ImageFolder", root=str(root), size=32)!r}')
        for root in (photographs, photographs.with_suffix('.zip'))
    ]
    assert results[0]['metrics'] == results[1]['metrics']


def test_pictures_of_a_run_show_what_it_started_from(weights, tmp_path):
    """The config's weights are 'before' only for a checkpoint of the run itself, and only if they are still there."""
    start, own = tmp_path / 'start.pth', tmp_path / 'work' / 'iter_1.pth'
    state = torch.load(weights, weights_only=True)
    torch.save({name: 0.5 * value for name, value in state.items()}, start)
    own.parent.mkdir()
    shutil.copy(weights, own)
    word = f'model.autoencoder.weights={start}'
    heights = {}
    for name, file in (('elsewhere', weights), ('own', own)):
        card = evaluate(file, tmp_path, word)['card']
        assert card.get('started_from', {}).get('file') == (str(start) if name == 'own' else None)
        with Image.open(tmp_path / 'work' / 'test.png') as grid:
            heights[name] = grid.height
        assert ('Before training: ' in (tmp_path / 'work' / 'report.html').read_text()) is (name == 'own')
    assert heights['own'] > 1.5 * heights['elsewhere']  # eleven rows, not seven
    start.unlink()
    assert 'started_from' not in evaluate(own, tmp_path, word)['card']


PREDICTORS = [
    dict(type='LatentSpectrum'),
    dict(type='EffectiveRank'),
    dict(type='SpatialStructure'),
    dict(type='VelocityVariance'),
    dict(type='NeighborConsistency', neighbors=(1, 3)),
]


def test_predictors_use_the_folders_as_classes(weights, tmp_path):
    rng = np.random.default_rng(0)
    for name, bright in (('bright', 255), ('dark', 20), ('few', 120)):
        (tmp_path / 'set' / name).mkdir(parents=True)
        for number in range(3 if name == 'few' else 6):
            pixels = rng.integers(0, bright, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / 'set' / name / f'{number}.png')
    dataset = dict(type='ImageFolder', root=str(tmp_path / 'set'), size=32)
    words = f'evaluators={PREDICTORS!r}', f'test_dataloader.dataset={dataset!r}'
    result = evaluate(weights, tmp_path, *words)
    cards = result['card']['evaluators']
    assert cards['VelocityVariance']['classes'] == 2  # the third has three images
    assert cards['VelocityVariance']['images_per_class'] == '6 to 6'
    assert cards['NeighborConsistency']['classes'] == 3
    assert result['metrics']['lnc@3'] > 1.5 * cards['NeighborConsistency']['chance']
    assert set(result['cases']) == {'sec/0.25_std', 'sec/0.5_std'}
    one = {**dataset, 'root': str(tmp_path / 'set' / 'dark')}
    with pytest.raises(SystemExit, match='NeighborConsistency: the data set has one class'):
        evaluate(weights, tmp_path, words[0], f'test_dataloader.dataset={one!r}')


def test_the_batch_size_changes_nothing(weights, tmp_path):
    few = 'test_dataloader.dataset.num_images=12'
    one, other = (evaluate(weights, tmp_path, few, f'test_dataloader.batch_size={size}')['metrics'] for size in (12, 5))
    assert other == pytest.approx(one, rel=1e-5)


def test_a_diffusers_folder_gives_the_files_numbers(weights, tmp_path):
    convert(str(weights), str(tmp_path / 'folder'), to='diffusers', config=_config_of_weights(tmp_path), scale=1.0)
    left, right = evaluate(weights, tmp_path), evaluate(tmp_path / 'folder', tmp_path)
    assert left['metrics'] == right['metrics']
    assert len(right['card']['weights']['sha256']) == 64


def _config_of_weights(tmp_path):
    autoencoder = dict(type='KLAutoencoder', block_out_channels=(8, 8, 8), layers_per_block=1, norm_num_groups=8)
    (tmp_path / 'tiny.py').write_text(f'autoencoder = {autoencoder!r}')
    return str(tmp_path / 'tiny.py')


def test_nothing_to_evaluate(tmp_path):
    with pytest.raises(SystemExit, match='Nothing to evaluate: .* has no checkpoint and the config names no weights'):
        run(evaluate_config, ['configs/demo/pretrain.py', f'work_dir={tmp_path}'])


def test_missing_weights_and_data_are_listed(tmp_path):
    with pytest.raises(SystemExit) as stop:
        evaluate(
            'no/weights.pth',
            tmp_path,
            "test_dataloader.dataset={'type': 'ImageFolder', 'root': 'no/images', 'size': 32}",
        )
    assert '2 missing' in str(stop.value)
    assert 'no/weights.pth' in str(stop.value)
    assert 'no/images' in str(stop.value)


def test_weights_of_another_shape_are_refused(weights, tmp_path):
    with pytest.raises(SystemExit, match='does not fit the network'):
        run(evaluate_config, ['configs/demo/pretrain.py', str(weights), f'work_dir={tmp_path}'])
