"""Commands on tar shards, parquet and LMDB: the same numbers, and the same weights to the bit, as on the folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from containers import png, write_tar

from eqzoo.commands.cache_latents import cache_latents
from eqzoo.commands.cli import run
from eqzoo.commands.demo import _data_overrides
from eqzoo.commands.reference import reference
from eqzoo.commands.score import score
from eqzoo.commands.train import train
from eqzoo.data.latents import LatentStore
from eqzoo.engine import latest_checkpoint
from eqzoo.laboratory.photographs import read_photographs

COUNT, SIDE = 24, 32
KINDS = ['tar', 'tars', 'parquet', 'lmdb']
CONFIG = """
from mmengine.config import read_base

with read_base():
    from eqzoo.configs.demo.pretrain import *

custom_hooks = dict(ema=dict(type='EMAHook', decay=0.5))
val_dataloader = None  # validation would take most of the time
visualizer = None
default_hooks.checkpoint.update(save_best=None)
model.autoencoder.update(block_out_channels=(8, 8))
images = dict(type='ImageFolder', root='ROOT', size=32)
train_dataloader.batch_size = 4
train_dataloader.dataset = dict(images, crop='random_square', flip=True)
cache_dataloader = dict(batch_size=8, num_workers=0, dataset=images)
del images
"""


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The same images as a folder without classes, and as each kind of container."""
    monkeypatch.setenv('EQZOO_CACHE', str(tmp_path / 'cache'))
    images = {f'{number:04d}': png(number, (SIDE, SIDE)) for number in range(COUNT)}
    found = {name: tmp_path / name for name in ('folder', 'tars')}
    for path in found.values():
        path.mkdir()
    for name, content in images.items():
        (found['folder'] / f'{name}.png').write_bytes(content)
    found['tar'] = write_tar(tmp_path / 'a.tar', {f'{name}.png': content for name, content in images.items()})
    items = list(images.items())
    for shard in range(3):
        part = {f'{name}.png': content for name, content in items[8 * shard : 8 * shard + 8]}
        write_tar(found['tars'] / f'{shard}.tar', {'0.txt': b'a caption', **part})
    if parquet := pytest.importorskip('pyarrow.parquet'):
        import pyarrow as pa

        found['parquet'] = tmp_path / 'a.parquet'
        parquet.write_table(pa.table(dict(image=list(images.values()))), found['parquet'])
    lmdb = pytest.importorskip('lmdb')
    found['lmdb'] = tmp_path / 'a.lmdb'
    with lmdb.open(str(found['lmdb']), map_size=1 << 22) as environment, environment.begin(write=True) as transaction:
        for name, content in images.items():
            transaction.put(name.encode(), content)
    return {name: str(path) for name, path in found.items()}


def config_of(tmp_path, place):
    path = tmp_path / f'{Path(place).name}.py'
    path.write_text(CONFIG.replace('ROOT', place))
    return str(path)


def trained(config, folder, steps, *words):
    lengths = [f'train_cfg.max_iters={steps}', f'train_cfg.val_interval={steps}']
    run(train, [config, f'work_dir={folder}', *lengths, *words])
    return torch.load(latest_checkpoint(folder), weights_only=True)['state_dict']


def test_training_from_shards_and_tables_gives_the_weights_of_the_folder(places, tmp_path, assert_same):
    configs = {kind: config_of(tmp_path, place) for kind, place in places.items()}
    expected = trained(configs['folder'], tmp_path / 'runs' / 'folder', 4)
    for kind in ('tars', 'parquet'):
        assert_same(trained(configs[kind], tmp_path / 'runs' / kind, 4), expected)
    trained(configs['tars'], tmp_path / 'runs' / 'resumed', 2)
    resumed = trained(configs['tars'], tmp_path / 'runs' / 'resumed', 4, '--resume', 'train_dataloader.num_workers=2')
    assert_same(resumed, expected)


def test_stores_from_each_kind_are_those_of_the_folder(places, tmp_path):
    trained(config_of(tmp_path, places['folder']), tmp_path / 'run', 1)
    latents = {}
    for kind in ('folder', 'tars', 'parquet'):
        words = [str(latest_checkpoint(tmp_path / 'run')), '--out', str(tmp_path / f'store-{kind}')]
        run(cache_latents, [config_of(tmp_path, places[kind]), *words])
        store = LatentStore(tmp_path / f'store-{kind}')
        latents[kind] = torch.stack([store[index]['mean'] for index in range(COUNT)])
    assert torch.equal(latents['tars'], latents['folder'])
    assert torch.equal(latents['parquet'], latents['folder'])


def test_reference_and_score_have_the_numbers_of_the_folder(places, tmp_path):
    offline, results = ['--extractor', 'EfficientNetLite0'], {}
    for kind in ('folder', 'tars', 'parquet'):
        run(reference, [places[kind], str(tmp_path / f'{kind}.npz'), *offline, '--size', str(SIDE)])
        words = ['--metrics', 'fd', '--min-images', '2', '--out', str(tmp_path / 'work' / kind)]
        results[kind] = run(score, [places[kind], str(tmp_path / 'folder.npz'), *offline, *words])['metrics']
    with np.load(tmp_path / 'folder.npz') as folder:
        for kind in ('tars', 'parquet'):
            with np.load(tmp_path / f'{kind}.npz') as other:
                np.testing.assert_array_equal(other['mu'], folder['mu'])
                np.testing.assert_array_equal(other['sigma'], folder['sigma'])
    assert results['tars'] == results['parquet'] == results['folder']


@pytest.mark.parametrize('kind', KINDS)
def test_the_demo_and_the_laboratory_take_them(places, kind):
    overrides = _data_overrides(places[kind], SIDE)
    assert len(overrides) == 3
    assert f"'root': '{places[kind]}'" in overrides[0]
    photographs = read_photographs([places[kind]], limit=5)
    assert len(photographs.images) == 5
