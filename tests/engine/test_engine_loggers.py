"""Weights & Biases, MLflow and TensorBoard: a run's scalars, pictures and config arrive with the steps of training."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from eqzoo.commands.cli import run
from eqzoo.commands.train import train
from eqzoo.schema import check_foreign

CONFIG = """
from mmengine.config import read_base

with read_base():
    from eqzoo.configs.demo.plain import *

model.autoencoder = dict(type='TinyAutoencoder', num_blocks=(1, 1), width=8)
model.penalties = []
train_dataloader.update(batch_size=2, dataset=dict(type='Shapes', num_images=8, size=16))
val_dataloader.update(batch_size=2, dataset=dict(type='Shapes', num_images=2, size=16, seed=1))
evaluators = [dict(type='ReconstructionMetric')]
custom_hooks = dict(pictures=dict(type='PictureHook', interval=2, num_images=2))
default_hooks.checkpoint.update(save_best=None)
default_hooks.logger.update(interval=1)
train_cfg = dict(max_iters=3, val_interval=2)
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / 'config.py').write_text(CONFIG)
    return str(tmp_path / 'config.py')


def losses_in_the_log(work_dir):
    """The losses by step, as mmengine's own backend has written them."""
    (file,) = work_dir.rglob('scalars.json')
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return {row['step']: row['loss'] for row in rows if 'loss' in row}


def same_picture(first, second):
    with Image.open(first) as one, Image.open(second) as other:
        return np.array_equal(np.asarray(one.convert('RGB')), np.asarray(other))


def records_of(file):
    """The records of a W&B file: LevelDB's log format, whose blocks of 32 kB cut records into pieces."""
    content, place, record = file.read_bytes(), 7, b''
    assert content.startswith(b':W&B')
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], 'little'), content[place + 6]
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b''


def test_wandb_offline(config, tmp_path, monkeypatch):
    wandb = pytest.importorskip('wandb')
    from wandb.proto.wandb_internal_pb2 import Record

    for name, value in (('WANDB_MODE', 'offline'), ('WANDB_SILENT', 'true'), ('HOME', str(tmp_path / 'home'))):
        monkeypatch.setenv(name, value)
    work_dir = tmp_path / 'run'
    backends = "[{'type': 'LocalVisBackend'}, {'type': 'WandbVisBackend', 'init_kwargs': {'project': 'mine'}}]"
    train(config, overrides=[f'work_dir={work_dir}', f'visualizer.vis_backends={backends}'])
    wandb.teardown()
    (file,) = work_dir.rglob('run-*.wandb')
    rows, settings = {}, {}
    for record in map(Record.FromString, records_of(file)):
        items = {each.key or '/'.join(each.nested_key): json.loads(each.value_json) for each in record.history.item}
        if items:
            rows[items.pop('_step')] = items
        if record.WhichOneof('record_type') == 'run':
            settings |= {each.key: json.loads(each.value_json) for each in record.run.config.update}
            assert record.run.project == 'mine'
        settings |= {each.key: json.loads(each.value_json) for each in record.config.update}
    assert {step: row['loss'] for step, row in rows.items()} == pytest.approx(losses_in_the_log(work_dir))
    assert [step for step, row in rows.items() if 'psnr' in row] == [2, 3]
    assert settings['train_cfg'] == dict(max_iters=3, val_interval=2)
    drawn = {step: row['autoencoder/path'] for step, row in rows.items() if 'autoencoder/path' in row}
    assert list(drawn) == [2, 3]
    for step, picture in drawn.items():
        assert same_picture(file.parent / 'files' / picture, work_dir / f'pictures/{step:07d}.png')
    assert not list(file.parent.rglob('*.py'))  # mmengine's backend copies those of the current directory


def test_wandb_without_an_account_is_one_message(config, tmp_path, monkeypatch):
    wandb = pytest.importorskip('wandb')
    for name, value in (('WANDB_SILENT', 'true'), ('HOME', str(tmp_path / 'home')), ('NETRC', '/nowhere')):
        monkeypatch.setenv(name, value)
    for name in ('WANDB_MODE', 'WANDB_API_KEY'):
        monkeypatch.delenv(name, raising=False)
    words = [config, f'work_dir={tmp_path}/run', "visualizer.vis_backends=[{'type': 'WandbVisBackend'}]"]
    with pytest.raises(
        SystemExit, match=r'error: visualizer: Weights & Biases does not start a run .*WANDB_MODE=offline'
    ):
        run(train, words)
    wandb.teardown()


def _has_mlflow():
    try:
        import mlflow  # noqa: F401
    except ImportError:
        return False
    return find_spec('sqlalchemy') is not None  # mlflow-skinny has no database


@pytest.mark.skipif(not _has_mlflow(), reason='needs mlflow')
@pytest.mark.filterwarnings('ignore')  # of mlflow, about its own dependencies
def test_mlflow_in_the_work_directory(config, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    work_dir = tmp_path / 'run'
    backends = "[{'type': 'LocalVisBackend'}, {'type': 'MLflowVisBackend', 'run_name': 'first'}]"
    train(config, overrides=[f'work_dir={work_dir}', f'visualizer.vis_backends={backends}'])
    (database,) = work_dir.rglob('mlflow.db')
    client = mlflow.MlflowClient(f'sqlite:///{database}')
    (found,) = client.search_runs([client.get_experiment_by_name('eqzoo').experiment_id])
    assert found.info.run_name == 'first'
    assert found.info.status == 'FINISHED'
    history = {each.step: each.value for each in client.get_metric_history(found.info.run_id, 'loss')}
    assert history == pytest.approx(losses_in_the_log(work_dir))
    assert [each.step for each in client.get_metric_history(found.info.run_id, 'psnr')] == [2, 3]
    assert found.data.params['train_cfg.max_iters'] == '3'
    for step in (2, 3):
        (picture,) = work_dir.rglob(f'autoencoder_{step:07d}.png')
        assert same_picture(picture, work_dir / f'pictures/{step:07d}.png')


def test_tensorboard(config, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    work_dir = tmp_path / 'run'
    train(config, overrides=[f'work_dir={work_dir}'])
    (file,) = work_dir.rglob('events.out.tfevents*')
    events = EventAccumulator(str(file)).Reload()
    assert {each.step: each.value for each in events.Scalars('loss')} == pytest.approx(losses_in_the_log(work_dir))
    assert [each.step for each in events.Images('autoencoder')] == [2, 3]


@pytest.mark.parametrize(
    ('name', 'advice'),
    [('WandbVisBackend', r"pip install 'eqzoo\[wandb\]'"), ('MLflowVisBackend', r"pip install 'eqzoo\[mlflow\]'")],
)
def test_a_missing_package_is_one_message(name, advice, monkeypatch):
    monkeypatch.setattr('eqzoo.schema.find_spec', lambda package: None)
    config = dict(visualizer=dict(type='Visualizer', vis_backends=[dict(type=name)]))
    with pytest.raises(ValueError, match=rf'vis_backends\[0\]: {name} needs .*, which is not installed.*{advice}'):
        check_foreign(config)
