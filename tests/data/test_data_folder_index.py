"""The index of a large folder: the second listing reads no folder, and never differs from a walk."""

import multiprocessing
import os
import shutil
import time
from collections import Counter

import pytest

from eqzoo.data import folder_index, sources
from eqzoo.data.folder_index import IndexedFolder
from eqzoo.data.opening import open_source
from eqzoo.data.sources import FolderSource

NAMES = [f'{name}/{number}.png' for name in ('ant', 'bee/queen', 'odd\udcff') for number in range(4)]
SETTLED = 0.05  # seconds; longer than a tick of the kernel's clock


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Return a folder whose changes are older than `SETTLED`; those of four images and more are kept."""
    monkeypatch.setenv('EQZOO_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(folder_index, '_LEAST', 4)
    monkeypatch.setattr(folder_index, '_are_trusted', lambda folders: True)
    root = tmp_path / 'images'
    for name in [*NAMES, 'bee/notes.txt', 'ant/0_mask.png', '.hidden/1.png']:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    time.sleep(2 * SETTLED)
    return root


@pytest.fixture
def walks(monkeypatch):
    """Count walks, by root."""
    counts, walk = Counter(), FolderSource.walk
    monkeypatch.setattr(FolderSource, 'walk', lambda self: counts.update([self.root.name]) or walk(self))
    return counts


def listed(root, *endings, settled=SETTLED):
    source = IndexedFolder(root, *endings, settled=settled)
    return list(source.names()), source.left_out, source.masks


def walked(root):
    source = FolderSource(root)
    return list(source.names()), source.left_out, source.masks


def test_the_second_listing_is_the_first_without_a_walk(root, walks):
    first = listed(root)
    assert first == (sorted(NAMES), Counter({'.txt': 1}), 1)
    assert walks['images'] == 1
    assert listed(root) == first
    assert list(open_source(root).names()) == first[0]  # what was kept is read, however young
    assert walks['images'] == 1
    assert listed(root, ('.txt',))[0] == ['bee/notes.txt']  # another listing
    assert walks['images'] == 2


CHANGES = {
    'a file is added': lambda root: (root / 'ant/new.png').touch(),
    'a file is removed': lambda root: (root / 'bee/queen/1.png').unlink(),
    'a file is renamed': lambda root: (root / 'ant/1.png').rename(root / 'ant/x.png'),
    'a file becomes a folder': lambda root: ((root / 'ant/1.png').unlink(), (root / 'ant/1.png').mkdir()),
    'a folder is added': lambda root: shutil.copytree(root / 'ant', root / 'fly'),
    'a folder is removed': lambda root: shutil.rmtree(root / 'bee'),
    'a folder is renamed': lambda root: (root / 'bee/queen').rename(root / 'bee/king'),
    'a folder is replaced': lambda root: (
        (root / 'bee').rename(root.parent / 'old'),
        shutil.copytree(root.parent / 'old/queen', root / 'bee'),
    ),
    'everything is replaced': lambda root: (
        root.rename(root.parent / 'old'),
        shutil.copytree(root.parent / 'old/ant', root),
    ),
    'something that is left out is added': lambda root: (root / 'ant/more.txt').touch(),
    'a mask is removed': lambda root: (root / 'ant/0_mask.png').unlink(),
}


@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize('set_back', [False, True])
def test_a_change_is_seen(root, change, set_back):
    """Also by a program that sets times back, as rsync does."""
    before = listed(root)
    times = {path: path.stat() for path in (root, *root.rglob('*')) if path.is_dir()}
    CHANGES[change](root)
    for path, status in times.items() if set_back else ():
        if path.is_dir():
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert listed(root) == walked(root) != before


def test_contents_may_change_without_a_walk(root, walks):
    listed(root)
    (root / 'ant/1.png').write_bytes(b'other pixels')
    assert listed(root)[0] == sorted(NAMES)
    assert walks['images'] == 1


def test_a_folder_that_was_just_changed_is_not_trusted(root, walks):
    for count in (1, 2):
        assert list(open_source(root).names()) == sorted(NAMES)  # younger than a minute
        assert walks['images'] == count


def test_few_images_are_not_kept(root, walks, monkeypatch, tmp_path):
    monkeypatch.setattr(folder_index, '_LEAST', len(NAMES) + 1)
    listed(root)
    listed(root)
    assert walks['images'] == 2
    assert not (tmp_path / 'cache').exists()


def test_links_to_folders_are_watched_and_links_to_files_are_not_trusted(root, walks, tmp_path):
    other = tmp_path / 'other'
    shutil.copytree(root / 'ant', other)
    (root / 'link').symlink_to(other)
    time.sleep(2 * SETTLED)
    before = listed(root)
    assert listed(root) == before
    assert walks['images'] == 1
    (other / 'new.png').touch()
    assert listed(root) == walked(root) != before
    (root / 'link').unlink()
    (root / 'file.png').symlink_to(other)  # to a folder now, later to a file
    other.rename(tmp_path / 'elsewhere')
    time.sleep(2 * SETTLED)
    dangling = listed(root)
    assert 'file.png' in dangling[0]
    shutil.copytree(tmp_path / 'elsewhere', other)  # without a change in `root`
    assert listed(root) == walked(root) != dangling
    (root / 'file.png').unlink()
    (root / 'ant/loop').symlink_to(root)
    time.sleep(2 * SETTLED)
    count = walks['images']
    listed(root)
    listed(root)
    assert walks['images'] == count + 2


def test_a_damaged_index_is_made_again(root, walks, tmp_path):
    listed(root)
    (kept,) = (tmp_path / 'cache/indices').glob('*.npz')
    content = kept.read_bytes()
    for damaged in (b'', content[:-40], b'PK' + bytes(100), content[:300] + bytes(40) + content[340:]):
        kept.write_bytes(damaged)
        assert listed(root)[0] == sorted(NAMES)


def test_a_cache_that_cannot_be_written_costs_a_walk(root, walks, tmp_path):
    (tmp_path / 'cache').write_text('no folder')
    assert listed(root) == listed(root)
    assert walks['images'] == 2


def _list(root, results):
    results.put(listed(root)[0])


def test_processes_may_write_the_index_at_once(root):
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    processes = [context.Process(target=_list, args=(root, results)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [sorted(NAMES)] * 4
    for process in processes:
        process.join()
    assert listed(root)[0] == sorted(NAMES)


def test_only_file_systems_that_keep_times_are_trusted(tmp_path, monkeypatch):
    real = tmp_path.resolve()
    mounts = {'/': 'ext4', real / 'bucket é': 'fuse.s3fs', real / 'bucket é/disk': 'xfs', real / 'scratch': 'lustre'}
    text = [
        f'36 35 98:0 / {str(place).replace(" ", chr(92) + "040")} rw,noatime shared:1 - {kind} /dev/sda1 rw'
        for place, kind in mounts.items()
    ]
    (tmp_path / 'mountinfo').write_text('\n'.join(text))
    monkeypatch.setattr(folder_index, '_MOUNTS', tmp_path / 'mountinfo')
    trusted = {
        name: folder_index._are_trusted([f'{real}/{name}'])
        for name in ('images', 'bucket é', 'bucket é/images', 'bucket é/disk/images', 'scratch/a/b')
    }
    assert list(trusted.values()) == [True, False, False, True, True]
    assert not folder_index._are_trusted([f'{real}/images', f'{real}/bucket é/images'])
    monkeypatch.setattr(folder_index, '_MOUNTS', tmp_path / 'nowhere')
    assert not folder_index._are_trusted(['/'])


def test_the_status_is_of_before_the_folder_was_read(root, monkeypatch):
    """A file that is added while folders are listed is in the next listing."""
    scandir, added = os.scandir, root / 'ant/late.png'

    def late(folder):
        entries = scandir(folder)
        if str(folder).endswith('/ant'):
            list_of = list(entries)
            added.touch()
            return _Entries(list_of)
        return entries

    with monkeypatch.context() as patch:
        patch.setattr(sources.os, 'scandir', late)
        assert 'ant/late.png' not in listed(root)[0]
    assert 'ant/late.png' in listed(root)[0]


class _Entries(list):
    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass
