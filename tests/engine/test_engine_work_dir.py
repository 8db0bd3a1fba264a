"""Folders of commands: locked, emptied of nothing but what the same command wrote; smoke runs keep to their own."""

import fcntl
import hashlib
import resource
from pathlib import Path

import pytest
import torch

from eqzoo.commands.cache_latents import cache_latents
from eqzoo.commands.cli import run
from eqzoo.commands.compare import compare
from eqzoo.commands.demo import demo
from eqzoo.commands.latent_stats import latent_stats
from eqzoo.commands.sample import sample
from eqzoo.commands.test import test as evaluate
from eqzoo.commands.train import train
from eqzoo.config import load_config
from eqzoo.engine import shrink
from eqzoo.engine.smoke import MARK, smoke_path
from eqzoo.engine.work_dir import REPORT_LOCK, empty_of_earlier_runs, own_file, own_folder
from eqzoo.files import WriteError

AUTOENCODER = 'configs/demo/plain.py'
DIT = 'configs/dit/dit_tiny_shapes.py'


def hashes(folder):
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob('*')
        if file.is_file()
    }


@pytest.fixture
def real(root, tmp_path, tmp_path_factory, monkeypatch):
    """A folder of a real run, outside of `work_dirs/smoke`; what smoke runs write goes to `tmp_path`."""
    (tmp_path / 'configs').symlink_to(root / 'configs')
    monkeypatch.chdir(tmp_path)
    folder = tmp_path_factory.getbasetemp().parent.parent / tmp_path.name / 'run'
    (folder / 'latents').mkdir(parents=True)
    names = ('iter_2.pth', 'iter_4.pth', 'best_psnr_iter_2.pth', 'mine.pth', 'autoencoder.pt', 'latents/plan.json')
    for name in names:
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.mark.parametrize(
    ('path', 'place'),
    [
        ('work_dirs/eqvae/sd', 'work_dirs/smoke/eqvae/sd'),
        ('/scratch/work_dirs/a', '/scratch/work_dirs/smoke/a'),
        ('/scratch/work_dirs/smoke/a', '/scratch/work_dirs/smoke/a'),
        ('work_dirs', 'work_dirs/smoke'),
        ('work_dirs/smoke/../real', 'work_dirs/smoke/real'),
        ('/data/latents', 'work_dirs/smoke/data/latents'),
        ('../samples.npz', 'work_dirs/smoke/samples.npz'),
        ('work_dirs_of_mine/a', 'work_dirs/smoke/work_dirs_of_mine/a'),
    ],
)
def test_smoke_has_a_place_of_its_own_for_every_path(path, place):
    assert str(smoke_path(path)) == place


def test_a_smoke_run_leaves_a_real_folder_as_it_was(real, tmp_path):
    with own_folder(real):  # also while a run is in it
        before = hashes(real)
        for words in ([DIT], [DIT, '--dry-run'], [AUTOENCODER, '--dry-run'], [DIT, '--resume', '--dry-run']):
            run(train, [*words, '--smoke', f'work_dir={real}'])
        assert hashes(real) == before
    assert len(list((tmp_path / 'work_dirs' / 'smoke').rglob('iter_4.pth'))) == 1


def test_every_command_smokes_elsewhere(real):
    before = hashes(real)
    work_dir = f'work_dir={real}'
    run(cache_latents, [DIT, '--smoke', work_dir, '--out', str(real / 'latents')])
    run(train, [DIT, '--smoke', work_dir])
    run(sample, [DIT, '--smoke', work_dir, '--out', str(real / 'samples'), '--num', '2'])
    run(evaluate, [DIT, '--smoke', work_dir, '--samples', str(real / 'more.npz')])
    with pytest.raises(SystemExit, match=r'--smoke: .*iter_4.pth is not of a smoke run'):
        run(latent_stats, [AUTOENCODER, str(real / 'iter_4.pth'), '--smoke'])
    assert hashes(real) == before
    below = smoke_path(real)
    assert len(list((below / 'samples').glob('*.png'))) == 2
    assert (below / 'more.npz').is_file()
    assert (below / 'latents' / 'index.json').is_file()


def test_smoke_latents_of_two_configs_stand_beside_each_other(tmp_path):
    stores = {}
    for seed in (0, 1):
        config = shrink(load_config(DIT, [f'work_dir={tmp_path}', f'seed={seed}']))
        stores[seed] = config.train_dataloader.dataset.root, hashes(tmp_path)
    assert stores[0][0] != stores[1][0]
    assert stores[0][1].items() <= stores[1][1].items()


def test_only_checkpoints_of_the_same_command_are_deleted(tmp_path):
    own = ['iter_2.pth', 'iter_4.pth', 'best_psnr_iter_4.pth']
    others = ['mine.pth', 'best.pth', 'iter_x.pth', 'notes.txt']
    for name in (*own, *others):
        (tmp_path / name).write_text(name)
    with pytest.raises(
        ValueError, match=r'checkpoints of another run \(best_psnr_iter_4.pth, iter_2.pth, iter_4.pth\)'
    ):
        empty_of_earlier_runs({tmp_path: 4}, MARK)  # without a mark
    assert set(hashes(tmp_path)) == {*own, *others}
    for name in own:
        (tmp_path / name).unlink()
    empty_of_earlier_runs({tmp_path: 4}, MARK)
    for name in own:
        (tmp_path / name).write_text(name)
    with pytest.raises(ValueError, match='another run'):
        empty_of_earlier_runs({tmp_path: 4}, '.demo')  # with the mark of another command
    (tmp_path / 'iter_900.pth').write_text('a real run went on from here')
    with pytest.raises(ValueError, match=r'another run \(iter_900.pth\)'):
        empty_of_earlier_runs({tmp_path: 4}, MARK)
    assert set(hashes(tmp_path)) == {*own, *others, 'iter_900.pth', MARK}
    (tmp_path / 'iter_900.pth').unlink()
    empty_of_earlier_runs({tmp_path: 4}, MARK)
    assert set(hashes(tmp_path)) == {*others, MARK}


def test_a_demo_that_cannot_run_deletes_nothing(tmp_path):
    for name in ('pretrain', 'plain', 'eq'):
        empty_of_earlier_runs({tmp_path / name: 9}, '.demo')
        (tmp_path / name / 'iter_9.pth').write_text('an earlier demo')
    (tmp_path / 'eq' / 'iter_70.pth').write_text('mine')
    before = hashes(tmp_path)
    with pytest.raises(SystemExit, match=r'nowhere'):
        run(demo, ['--images', 'nowhere', '--work-dir', str(tmp_path)])
    assert hashes(tmp_path) == before
    with pytest.raises(SystemExit, match=r'eq: holds checkpoints of another run \(iter_70.pth\)'):
        run(demo, ['--work-dir', str(tmp_path)])
    assert hashes(tmp_path).keys() - before.keys() == {'.lock'}
    assert before.items() <= hashes(tmp_path).items()


def test_two_runs_do_not_write_to_one_place(tmp_path):
    config = shrink(load_config(DIT, [f'work_dir={tmp_path}']))
    run(train, [DIT, '--smoke', f'work_dir={tmp_path}'])
    busy = r'is in use by another run \(process \d+ on .*wait for it, or choose another'
    with own_file(tmp_path / 'a.npz', '--out'), pytest.raises(SystemExit, match=rf'--out: .*a.npz {busy}'):
        run(sample, [DIT, '--smoke', f'work_dir={tmp_path}', '--out', str(tmp_path / 'a.npz'), '--num', '1'])
    store = tmp_path / 'store'
    with own_folder(store), pytest.raises(SystemExit, match=rf'--out: .*store {busy}'):
        run(cache_latents, [DIT, '--smoke', f'work_dir={tmp_path}', '--out', str(store)])
    with own_folder(tmp_path, lock_name=REPORT_LOCK), pytest.raises(SystemExit, match=rf'work_dir: .* {busy}'):
        run(evaluate, [DIT, '--smoke', f'work_dir={tmp_path}'])
    with own_folder(tmp_path):  # a run's checkpoints are tested while it trains
        run(evaluate, [DIT, '--smoke', f'work_dir={tmp_path}'])
    with own_folder(tmp_path / 'out', lock_name=REPORT_LOCK), pytest.raises(SystemExit, match=rf'--out: .* {busy}'):
        run(compare, [str(tmp_path), '--out', str(tmp_path / 'out')])
    assert config.work_dir == str(tmp_path)


def test_the_lock_of_a_file_is_removed(tmp_path):
    with own_file(tmp_path / 'a.npz', '--out'):
        assert [each.name for each in tmp_path.iterdir()] == ['.a.npz.lock']
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_removed_while_it_was_opened_excludes_nobody(tmp_path, monkeypatch):
    """Between opening and locking, the owner removes the lock and a third run makes its own."""
    path, flock, third = tmp_path / '.a.npz.lock', fcntl.flock, []

    def late(file, how):
        if not third:
            path.unlink()
            third.append(path.open('a+'))
            flock(third[0], how)
        flock(file, how)

    monkeypatch.setattr(fcntl, 'flock', late)
    with (
        pytest.raises(ValueError, match='--out: .*a.npz is in use by another run'),
        own_file(path.parent / 'a.npz', '--out'),
    ):
        pass
    third[0].close()


def test_a_failure_without_a_name_is_of_the_folder(tmp_path):
    def write_a_log():
        with own_folder(tmp_path), (tmp_path / 'log').open('a') as log:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
            log.write('x' * 1000)

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(WriteError, match=rf'{tmp_path}: cannot be written \(File too large\)'):
            write_a_log()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_new_run_leaves_best_checkpoints_of_others(tmp_path):
    words = [AUTOENCODER, '--smoke', f'work_dir={tmp_path}', 'default_hooks.checkpoint.save_best=psnr']
    run(train, [*words, 'default_hooks.checkpoint.rule=greater'])
    (tmp_path / MARK).unlink()  # from here on it is anybody's
    for file in tmp_path.glob('iter_*.pth'):
        file.unlink()
    best = next(tmp_path.glob('best_psnr_*.pth'))
    best.rename(tmp_path / 'best_psnr_iter_70.pth')
    with pytest.raises(SystemExit, match=r'another run \(best_psnr_iter_70.pth\)'):
        run(train, words)
    assert (tmp_path / 'best_psnr_iter_70.pth').is_file()
    assert torch.load(tmp_path / 'best_psnr_iter_70.pth', weights_only=True)['message_hub']['runtime_info'][
        'best_file'
    ].startswith('best_psnr_iter_')


@pytest.mark.parametrize('place', ['.', '..', 'a/..'])
def test_a_place_without_a_name_is_locked_beside_itself(place, tmp_path, monkeypatch):
    (tmp_path / 'outer/here/a').mkdir(parents=True)
    monkeypatch.chdir(tmp_path / 'outer/here')
    beside = tmp_path / 'outer/.here.lock' if place != '..' else tmp_path / '.outer.lock'
    with own_file(place, '--out') as path:
        assert path == Path(place)
        assert beside.is_file()
    assert not beside.exists()
