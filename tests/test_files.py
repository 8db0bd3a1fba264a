"""Files: atomic replacement, JSON, hashes, damage, and the nearest name."""

import errno
import hashlib
import os
import re
import resource
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from eqzoo.files import (
    WriteError,
    did_you_mean,
    nearest,
    remove_leftovers,
    replacing,
    save_picture,
    sha256_of,
    write_json,
    writing_to,
    zip_damage,
)
from eqzoo.npz import write_npz

NOBODY = 2**30  # no system has so many processes


def torch_file(path):
    with path.open('wb') as file:
        torch.save({'a': torch.zeros(50_000)}, file)


WRITERS = {
    'text': lambda path: path.write_text('x' * 50_000),
    'torch': torch_file,
    'safetensors': lambda path: save_file({'a': torch.zeros(50_000)}, path),
    'picture': lambda path: Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8)).save(
        path, 'png'
    ),
}


def content(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob('*') if path.is_file()}


@pytest.mark.parametrize('before', [None, 'old'])
def test_a_file_is_replaced_when_the_block_ends(tmp_path, before):
    path = tmp_path / 'new' / 'a.txt'
    if before:
        path.parent.mkdir()
        path.write_text(before)
    with replacing(path) as temporary:
        temporary.write_text('whole')
        assert temporary.parent == path.parent
        assert (path.read_text() if path.exists() else None) == before
    assert content(tmp_path) == {'new/a.txt': 'whole'}


@pytest.mark.parametrize('before', [None, 'old'])
def test_a_folder_is_replaced_when_the_block_ends(tmp_path, before):
    path = tmp_path / 'a'
    if before:
        path.mkdir()
        (path / 'gone.txt').write_text(before)
    with replacing(str(path)) as temporary:
        (temporary / 'inner').mkdir(parents=True)
        (temporary / 'inner' / 'b.txt').write_text('whole')
    assert content(tmp_path) == {'a/inner/b.txt': 'whole'}
    assert [each.name for each in tmp_path.iterdir()] == ['a']


@pytest.mark.parametrize('is_folder', [False, True])
def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path, is_folder):
    path = tmp_path / 'a'
    if is_folder:
        path.mkdir()
    old = path / 'old.txt' if is_folder else path
    old.write_text('old')

    def fail_halfway():
        with replacing(path) as temporary:
            if is_folder:
                temporary.mkdir()
            (temporary / 'b.txt' if is_folder else temporary).write_text('half')
            raise RuntimeError('half')

    with pytest.raises(RuntimeError, match='half'):
        fail_halfway()
    assert list(content(tmp_path).values()) == ['old']
    assert [each.name for each in tmp_path.iterdir()] == ['a']


def test_a_folder_that_cannot_be_replaced_stays(tmp_path):
    """The new content is missing: the old folder, already renamed, comes back."""
    path = tmp_path / 'a'
    path.mkdir()
    (path / 'old.txt').write_text('old')
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert content(tmp_path) == {'a/old.txt': 'old'}


def test_a_file_never_takes_the_place_of_a_folder(tmp_path):
    (tmp_path / 'photographs').mkdir()
    (tmp_path / 'photographs' / 'a.jpg').write_text('precious')
    with (
        pytest.raises(WriteError, match='photographs: is a folder; expected a file to write'),
        replacing(tmp_path / 'photographs') as temporary,
    ):
        temporary.write_text('new')
    assert content(tmp_path) == {'photographs/a.jpg': 'precious'}


def test_bytes_are_on_the_disk_before_the_file_has_its_name(tmp_path, monkeypatch):
    synced, renamed = [], []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda number: (synced.append(os.fstat(number).st_size), fsync(number)))
    monkeypatch.setattr('pathlib.Path.replace', lambda self, to: (renamed.append(len(synced)), replace(self, to)))
    with replacing(tmp_path / 'a') as temporary:
        temporary.mkdir()
        for name, size in (('one', 3), ('two', 5)):
            (temporary / name).write_bytes(b'x' * size)
    assert sorted(synced) == [3, 5]
    assert renamed == [2]


def test_a_kill_leaves_the_old_content(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('old')
    code = f"""
import os, signal
from eqzoo.files import replacing
with replacing({str(path)!r}) as temporary:
    temporary.write_text('half')
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == -signal.SIGKILL
    assert path.read_text() == 'old'


@pytest.fixture
def small_files():
    """A system that lets no file grow beyond 5,000 bytes, root's neither."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize('write', WRITERS.values(), ids=WRITERS)
def test_every_writers_failure_is_one_message_and_leaves_the_old_file(write, tmp_path, small_files):
    path = tmp_path / 'a'
    path.write_text('old')
    message = rf'^{re.escape(str(path))}: cannot be written \(File too large\): .*ulimit.* unchanged\.$'
    with pytest.raises(WriteError, match=message) as failed, replacing(path) as temporary:
        write(temporary)
    assert failed.value.errno == errno.EFBIG
    assert content(tmp_path) == {'a': 'old'}


def test_arrays_and_pictures_say_the_same(tmp_path, small_files):
    with pytest.raises(WriteError, match=r'a\.npz: cannot be written'), write_npz(tmp_path / 'a.npz') as npz:
        npz.add('a', np.zeros(5000))
    with pytest.raises(WriteError, match=r'a\.png: cannot be written'):
        save_picture(
            Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8)), tmp_path / 'a.png'
        )
    assert content(tmp_path) == {}


def full(path):
    raise OSError(errno.ENOSPC, 'No space left on device')


def read_only(path):
    raise OSError(errno.EROFS, 'Read-only file system', str(path))


@pytest.mark.parametrize(('fail', 'remedy'), [(full, 'df -i'), (read_only, 'choose a place that you may write to')])
def test_the_message_says_what_to_do(fail, remedy, tmp_path):
    with (
        pytest.raises(WriteError, match=rf'{tmp_path}/a: cannot be written .*{remedy}'),
        replacing(tmp_path / 'a') as it,
    ):
        fail(it)
    inner = pytest.raises(WriteError, match=rf'{tmp_path}/a: cannot be written .*{remedy}')
    with inner, writing_to(tmp_path), replacing(tmp_path / 'a') as it:  # the first message stays
        fail(it)


def test_a_folder_in_place_of_a_parent_is_named(tmp_path):
    (tmp_path / 'file').write_text('x')
    with pytest.raises(WriteError, match=r'file/a: cannot be written'):
        write_json(tmp_path / 'file' / 'a', 1)


def test_a_folder_that_cannot_be_created_above_is_named(tmp_path, monkeypatch):
    """As the cache of a container whose user has the home `/`."""
    closed, make = tmp_path / '.cache', os.mkdir

    def mkdir(path, *given):
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, 'Permission denied', str(path))
        make(path, *given)

    monkeypatch.setattr(os, 'mkdir', mkdir)
    place = closed / 'eqzoo' / 'a.json'
    with pytest.raises(WriteError, match=r'\.cache: cannot be written \(Permission denied\): choose a place'):
        write_json(place, 1)
    with pytest.raises(WriteError, match='set EQZOO_CACHE'), writing_to(place, remedy='set EQZOO_CACHE'):
        place.parent.mkdir(parents=True)
    unreadable = OSError(errno.EIO, 'Input/output error', str(tmp_path))
    with pytest.raises(OSError, match='Input/output error') as raised, replacing(tmp_path / 'b' / 'c'):
        raise unreadable
    assert raised.value is unreadable


@pytest.mark.parametrize(
    'error',
    [
        FileNotFoundError(errno.ENOENT, 'No such file', 'photograph.png'),
        PermissionError(errno.EACCES, 'Permission denied', 'photograph.png'),
        RuntimeError('shapes differ'),
        OSError('download: no connection'),
    ],
)
def test_other_errors_are_not_taken_for_failures_to_write(error, tmp_path):
    def fail_otherwise():
        with replacing(tmp_path / 'a') as temporary:
            temporary.write_text('half')
            raise error

    with pytest.raises(type(error)) as raised:
        fail_otherwise()
    assert raised.value is error
    assert content(tmp_path) == {}


@pytest.mark.parametrize(('umask', 'mode'), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_new_files_have_the_mode_of_the_umask_and_replaced_ones_keep_theirs(umask, mode, tmp_path):
    before = os.umask(umask)
    try:
        for name, write in WRITERS.items():
            with replacing(tmp_path / name) as temporary:
                write(temporary)
        with replacing(tmp_path / 'folder') as temporary:
            temporary.mkdir()
            WRITERS['safetensors'](temporary / 'a')
        files = [file for file in tmp_path.rglob('*') if file.is_file()]
        assert {file.name: oct(file.stat().st_mode & 0o777) for file in files} == {
            name: oct(mode) for name in ('a', *WRITERS)
        }
        (tmp_path / 'text').chmod(0o444)
        with replacing(tmp_path / 'text') as temporary:
            WRITERS['safetensors'](temporary)
        assert (tmp_path / 'text').stat().st_mode & 0o777 == 0o444
    finally:
        os.umask(before)


def test_the_next_write_removes_what_killed_writes_left_and_nothing_else(tmp_path):
    alive, host = os.getppid(), next(iter(re.findall(r'@(.+)\.tmp', temporary_name(tmp_path))))
    gone = [f'.iter_6.pth.{NOBODY}.tmp', f'.x.npz.{NOBODY}@{host}.tmp', f'.a.{os.getpid()}@{host}.tmp']
    kept = ['notes.tmp', '.notes.tmp', f'.a.{alive}@{host}.tmp', f'.a.{NOBODY}@elsewhere.tmp', f'a.{NOBODY}.tmp']
    for name in (*gone, *kept):
        (tmp_path / name).write_text('half')
    old = tmp_path / f'.b.{NOBODY}@elsewhere.tmp'
    old.write_text('half')
    os.utime(old, (0, 0))  # whoever wrote it, has not done so for a day
    write_json(tmp_path / 'new.json', 1)
    assert sorted(content(tmp_path)) == sorted([*kept, 'new.json'])


def temporary_name(folder):
    with replacing(folder / 'other' / 'a') as temporary:
        temporary.write_text('')
    (folder / 'other' / 'a').unlink()
    return temporary.name


def test_a_folder_lost_between_its_two_steps_comes_back(tmp_path):
    for name in ('lost', 'replaced'):
        (tmp_path / f'.{name}.{NOBODY}.old').mkdir()
        (tmp_path / f'.{name}.{NOBODY}.old' / 'a').write_text('old')
    (tmp_path / 'replaced').mkdir()
    (tmp_path / 'replaced' / 'a').write_text('new')
    remove_leftovers(tmp_path)
    assert content(tmp_path) == {'lost/a': 'old', 'replaced/a': 'new'}


def test_json_is_written_whole_or_refused(tmp_path):
    path = tmp_path / 'new' / 'a.json'
    write_json(path, {'a': [1, 2.5]})
    assert path.read_text() == '{\n  "a": [\n    1,\n    2.5\n  ]\n}\n'
    with pytest.raises(ValueError, match='JSON'):
        write_json(path, {'a': float('nan')})
    assert path.read_text().startswith('{\n  "a"')


def test_the_hash_is_of_all_files_in_order(tmp_path):
    first, second = tmp_path / 'a', tmp_path / 'b'
    first.write_bytes(b'x' * 3_000_000)
    second.write_bytes(b'y')
    assert sha256_of(first, second) == hashlib.sha256(b'x' * 3_000_000 + b'y').hexdigest()
    assert sha256_of(str(second), first) == hashlib.sha256(b'y' + b'x' * 3_000_000).hexdigest()


def test_damage_of_an_archive_is_described(tmp_path):
    path = tmp_path / 'a.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('inner.txt', 'x' * 1000)
    assert zip_damage(path) is None
    whole = path.read_bytes()
    path.write_bytes(whole[:500] + b'y' + whole[501:])
    assert zip_damage(path) == 'the checksum of inner.txt fails'
    path.write_bytes(whole[:500])
    assert zip_damage(path).startswith('BadZipFile: ')
    assert zip_damage(tmp_path / 'nowhere.zip').startswith('FileNotFoundError: ')


@pytest.mark.parametrize(
    ('name', 'hint'), [('Rotat', 'Rotate'), ('rotate', 'Rotate'), ('Flap', 'Flip'), ('Warp', None), ('', None)]
)
def test_the_nearest_name(name, hint):
    known = ['Flip', 'Rotate', 'IsotropicScale']
    assert nearest(name, known) == hint
    assert did_you_mean(name, known) == (f' Did you mean {hint!r}?' if hint else '')


def test_the_cutoff_decides_how_near_a_name_has_to_be():
    assert nearest('train_cfgs', ['train_cfg']) == nearest('train_cfgs', ['train_cfg'], cutoff=0.9) == 'train_cfg'
    assert nearest('train', ['train_cfg']) == 'train_cfg'
    assert nearest('train', ['train_cfg'], cutoff=0.9) is None
