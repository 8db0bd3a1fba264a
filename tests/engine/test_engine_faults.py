"""Faults: each is reported in one message, and nothing is lost."""

import os
import re
import resource
import shutil
import signal
import time

import fault_hooks  # noqa: F401  registers them
import pytest
import torch
from PIL import Image

from eqzoo.commands.cache_latents import cache_latents
from eqzoo.commands.cli import run
from eqzoo.commands.sample import sample
from eqzoo.commands.test import test as evaluate
from eqzoo.commands.train import train
from eqzoo.config import load_config
from eqzoo.data import build_train_loader
from eqzoo.engine import build_runner, latest_checkpoint, read_checkpoint, shrink
from eqzoo.engine.work_dir import own_folder
from eqzoo.files import zip_damage
from eqzoo.registry import build

AUTOENCODER = 'configs/demo/plain.py'
DIT = 'configs/dit/dit_tiny_shapes.py'


def smoke(leaf, folder, *words, hook=None):
    """Run `tools/train.py` as the command line does, with one more hook."""
    hooks = [] if hook is None else [f'custom_hooks={dict(fault=hook)!r}']
    return run(train, [leaf, '--smoke', f'work_dir={folder}', *hooks, *words])


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The folder of a run without faults."""
    folder = tmp_path_factory.mktemp('whole')
    smoke(DIT, folder)
    return folder


def weights(folder):
    return read_checkpoint(folder / 'iter_4.pth')['state_dict']


def assert_same(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(value, right[name]) for name, value in left.items())


@pytest.mark.parametrize(
    ('leaf', 'scalars'),
    [
        (AUTOENCODER, 'loss nan, pixel nan, kl nan'),
        (DIT, 'loss nan, mse nan, vb nan'),
    ],
)
def test_a_loss_that_is_not_finite_stops_before_it_is_saved(leaf, scalars, tmp_path):
    with pytest.raises(
        SystemExit, match=rf'error: step 3: the loss is not finite \(.*{scalars}.*\); its batch'
    ) as stopped:
        smoke(leaf, tmp_path, hook=dict(type='PoisonWeights', step=3))
    assert 'iter_2.pth with --resume' in str(stopped.value)
    assert 'model.on_nonfinite=skip' in str(stopped.value)
    assert latest_checkpoint(tmp_path).name == 'iter_2.pth'
    smoke(leaf, tmp_path, '--resume')
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())


def test_steps_that_are_not_finite_can_be_left_out(tmp_path, capsys):
    with pytest.raises(SystemExit, match='step 3: the loss is not finite'):
        smoke(DIT, tmp_path / 'stop', hook=dict(type='PoisonBatch', step=3))
    smoke(DIT, tmp_path / 'skip', 'model.on_nonfinite=skip', hook=dict(type='PoisonBatch', step=3))
    out = capsys.readouterr().out
    assert 'skipped: 0.2500' in out  # of four steps
    assert 'nan' not in out.rsplit('[4/4]', 1)[1]
    states = read_checkpoint(tmp_path / 'skip' / 'iter_4.pth')['optimizer']['generator']['state'].values()
    assert {int(state['step']) for state in states} == {3}
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / 'skip').values())


@pytest.fixture
def from_a_terminal():
    """Ctrl-C is heard: a shell's background jobs, such as these tests may be, start with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(('name', 'status'), [('SIGTERM', 143), ('SIGUSR1', 138), ('SIGINT', 130)])
def test_signals_save_and_stop(name, status, whole, tmp_path, capsys, from_a_terminal):
    with pytest.raises(SystemExit) as stopped:
        smoke(DIT, tmp_path, hook=dict(type='SendSignal', step=3, name=name))
    assert stopped.value.code == status
    assert f'{name}: stopped after step 3' in capsys.readouterr().out
    assert latest_checkpoint(tmp_path).name == 'iter_3.pth'
    smoke(DIT, tmp_path, '--resume')
    assert_same(weights(tmp_path), weights(whole))


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(SystemExit, match=r'iter_4.pth: cannot be written \(File too large\).*unchanged'):
            smoke(DIT, tmp_path, hook=dict(type='FillDisk', step=3, size=20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [file.name for file in tmp_path.glob('*iter_*')] == ['iter_2.pth']
    assert zip_damage(tmp_path / 'iter_2.pth') is None
    smoke(DIT, tmp_path, '--resume')
    assert (tmp_path / 'iter_4.pth').is_file()


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    file = tmp_path / 'iter_4.pth'
    file.write_bytes(file.read_bytes()[:-2000])
    capsys.readouterr()
    smoke(DIT, tmp_path, '--resume')
    assert 'damaged checkpoint: iter_4.pth: BadZipFile' in capsys.readouterr().out
    assert_same(weights(tmp_path), weights(whole))
    for file in tmp_path.glob('iter_*.pth'):
        file.write_bytes(b'')
    with pytest.raises(SystemExit, match=r'damaged \(iter_4.pth: BadZipFile.*; iter_2.pth'):
        smoke(DIT, tmp_path, '--resume')


def test_a_folder_that_cannot_be_written_is_named():
    with pytest.raises(SystemExit, match=r'work_dir: /proc/work_dirs/smoke/eqzoo .*; set work_dir'):
        smoke(AUTOENCODER, '/proc/work_dirs/eqzoo')


def test_two_runs_do_not_share_a_folder(tmp_path):  # but one after the other may use it
    with (
        own_folder(tmp_path),
        pytest.raises(SystemExit, match=rf'{tmp_path} is in use by another run \(process \d+ on'),
    ):
        smoke(DIT, tmp_path)
    smoke(DIT, tmp_path)  # and is free again


@pytest.mark.parametrize('size', [500, 5000])
def test_a_disk_that_is_full_from_the_start_is_one_message(size, tmp_path, capsys):
    """Logs, dumps, pictures, checkpoints: whatever cannot be written first."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(SystemExit, match=r'error: .*cannot be written .*File too large'):
            smoke(AUTOENCODER, tmp_path, hook=dict(type='FillDisk', step=1, size=size))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert 'Logging error' not in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_a_missing_gpu_is_named(tmp_path):
    with pytest.raises(SystemExit, match="device: got 'cuda', .* no GPU"):
        smoke(DIT, tmp_path, 'device=cuda')
    for command, words in ((cache_latents, []), (evaluate, []), (sample, ['--out', str(tmp_path / 'out')])):
        with pytest.raises(SystemExit, match="device: got 'cuda', but torch"):
            run(command, [DIT, *words, '--smoke', f'work_dir={tmp_path}', 'device=cuda'])
    with pytest.raises(SystemExit, match="device: got 'tpu'; .*'auto'"):
        smoke(DIT, tmp_path, 'device=tpu')


def test_resume_is_auto_or_nothing(whole, tmp_path):
    smoke(DIT, tmp_path / 'new', 'resume=auto')  # there is no checkpoint yet
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    smoke(DIT, tmp_path, 'resume=auto', '--resume')
    with pytest.raises(SystemExit, match="resume must be 'auto' or None, got 'never'"):
        smoke(DIT, tmp_path, 'resume=never')


def test_images_that_are_broken_or_vanish_are_named_and_left_out(tmp_path, capsys, monkeypatch):
    """Empty, cut off, no image at all, a decompression bomb; and a folder that shrinks while it is read."""
    folder = tmp_path / 'images'
    folder.mkdir()
    for number in range(16):
        noise = torch.randint(256, (40, 40, 3), dtype=torch.uint8).numpy()
        Image.fromarray(noise).save(folder / f'{number:02d}.png')
    whole = (folder / '01.png').read_bytes()
    (folder / '01.png').write_bytes(b'')
    (folder / '02.png').write_bytes(whole[: len(whole) // 2])
    (folder / '03.png').write_bytes(b'<html>404</html>')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 40 * 40)
    Image.new('RGB', (100, 100)).save(folder / '04.png')
    data = dict(type='ImageFolder', root=str(folder), size=32)
    hook = dict(type='DeleteImages', step=3, folder=str(folder), keep=6, every=3)
    config = shrink(load_config(AUTOENCODER, [f'work_dir={tmp_path / "run"}', f'custom_hooks={dict(fault=hook)!r}']))
    config.train_dataloader.dataset = config.val_dataloader.dataset = data
    config.train_dataloader.batch_size = 8
    config.train_cfg.max_iters = 6
    build_runner(config).train()
    out = capsys.readouterr().out
    unreadable = re.findall(r'Unreadable image skipped: (\d\d).png', out)
    assert {'01', '02', '03', '04'} <= set(unreadable) <= {'01', '02', '03', '04', '06', '09', '12', '15'}
    assert set(unreadable) & {'06', '09', '12', '15'}
    assert f'Skipped: {len(set(unreadable))} unreadable images.' in out
    assert latest_checkpoint(tmp_path / 'run').name == 'iter_6.pth'


def test_a_folder_that_is_gone_stops_the_run(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    for number in range(8):
        Image.new('RGB', (40, 40)).save(folder / f'{number}.png')
    hook = dict(type='DeleteImages', step=2, folder=str(folder), keep=0)
    config = shrink(load_config(AUTOENCODER, [f'work_dir={tmp_path / "run"}', f'custom_hooks={dict(fault=hook)!r}']))
    config.train_dataloader.dataset = dict(type='ImageFolder', root=str(folder), size=32)
    config.default_hooks.checkpoint.interval = 1
    with pytest.raises(ValueError, match=r'No image of this batch of 4 can be read: \d.png'):
        build_runner(config).train()
    assert latest_checkpoint(tmp_path / 'run').name == 'iter_2.pth'


@pytest.mark.parametrize('workers', [0, 1])
def test_an_error_in_a_loaders_process_comes_without_its_traceback(workers, tmp_path):
    Image.new('RGB', (40, 40)).save(tmp_path / '0.png')
    (tmp_path / '0.png').write_bytes(b'')

    def read() -> None:
        data = build(dict(type='ImageFolder', root=str(tmp_path), size=32))
        next(iter(build_train_loader(data, batch_size=2, num_workers=workers, seed=0)))

    with pytest.raises(SystemExit) as stopped:
        run(read, [])
    assert (
        stopped.value.code
        == 'error: No image of this batch of 2 can be read: 0.png (the file is empty), 0.png (the file is empty); '
        'remove these files, or raise batch_size.'
    )


def test_a_lost_loader_process_is_reported():
    def lose() -> None:
        raise RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed.')

    with pytest.raises(SystemExit, match='worker .* Killed.*/dev/shm.*num_workers'):
        run(lose, [])


def test_a_folder_is_free_when_its_run_dies_before_its_loaders_do(tmp_path):
    """Kill -9 of the main process alone: processes that it forked live on for seconds."""
    reader, writer = os.pipe()
    main = os.fork()
    if main == 0:
        with own_folder(tmp_path):
            loader = os.fork()
            if loader == 0:
                time.sleep(60)
                os._exit(0)
            os.write(writer, f'{loader}\n'.encode())
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(main, 0)
    loader = int(os.read(reader, 20))
    try:
        with own_folder(tmp_path):
            os.kill(loader, 0)  # it is still there
    finally:
        os.kill(loader, signal.SIGKILL)
