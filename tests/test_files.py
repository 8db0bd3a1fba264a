"""Files: atomic replacement, JSON, hashes, damage, and the nearest name."""

import hashlib
import os
import signal
import subprocess
import sys
import zipfile

import pytest

from eqzoo.files import did_you_mean, nearest, replacing, sha256_of, write_json, zip_damage


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
