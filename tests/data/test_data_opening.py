"""Places of images: braces, patterns, lists, servers and other file systems; what several files must have in common."""

import os
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from containers import png, write_tar

from eqzoo.data import ImageFolder
from eqzoo.data.opening import expand_braces


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv('EQZOO_CACHE', str(tmp_path / '.cache'))


@pytest.fixture
def shards(tmp_path):
    (tmp_path / 'shards').mkdir()
    for number in range(3):
        content = {f'{number}{each}.png': png(10 * number + each) for each in range(4)}
        write_tar(tmp_path / 'shards' / f's-{number:03d}.tar', content)
    return tmp_path / 'shards'


@pytest.fixture
def server(shards):
    """A web server of a folder, and the paths that it was asked for."""
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

    found = ThreadingHTTPServer(('127.0.0.1', 0), partial(Handler, directory=str(shards)))
    threading.Thread(target=found.serve_forever, kwargs=dict(poll_interval=0.01), daemon=True).start()
    yield f'http://127.0.0.1:{found.server_port}', asked
    found.shutdown()
    found.server_close()


@pytest.mark.parametrize(
    'pattern',
    [
        's-{000..003}.tar', '{a,b}/{1..3}.tar', 'x{08..11}', '{3..1}', '{001..10}', 'plain.tar', '{a,b}{c,d}', '{x}.tar',
        'a{}b', '{0..0}', '{98..101}',
    ],
)  # fmt: skip
def test_braces_are_those_of_webdataset(pattern):
    braceexpand = pytest.importorskip('braceexpand')
    assert expand_braces(pattern) == list(braceexpand.braceexpand(pattern))


def test_braces_of_millions_are_refused():
    for pattern in ('{0..99999999}', '{0..9999}{0..9999}'):
        with pytest.raises(ValueError, match='more than 1,048,576 files'):
            expand_braces(pattern)


@pytest.mark.parametrize('kind', ['tar', 'zip'])
def test_threads_open_a_file_once(kind, tmp_path, monkeypatch):
    file, content = tmp_path / f'a.{kind}', {f'{number}.png': png(number) for number in range(8)}
    if kind == 'tar':
        write_tar(file, content)
    else:
        with zipfile.ZipFile(file, 'w') as archive:
            for name, data in content.items():
                archive.writestr(name, data)
    source, open_slowly = ImageFolder(file, 8).source, os.open
    monkeypatch.setattr(os, 'open', lambda *given: time.sleep(0.01) or open_slowly(*given))
    opened = len(list(Path('/proc/self/fd').iterdir()))
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(source.read, content)) == list(content.values())
    assert len(list(Path('/proc/self/fd').iterdir())) == opened + 1
    del source
    assert len(list(Path('/proc/self/fd').iterdir())) == opened


def test_shards_of_a_web_server_are_fetched_once(server, shards, tmp_path):
    url, asked = server
    dataset = ImageFolder(f'{url}/s-{{000..002}}.tar', 8)
    local = ImageFolder(f'{shards}/s-*.tar', 8)
    assert dataset.names == local.names
    assert dataset.identity() == {**local.identity(), 'root': 's-{000..002}.tar'}
    assert [dataset.source.read(name) for name in dataset.names] == [local.source.read(name) for name in local.names]
    assert sorted(asked) == [f'/s-{number:03d}.tar' for number in range(3)]
    ImageFolder([f'{url}/s-{number:03d}.tar' for number in range(3)], 8)
    assert len(asked) == 3
    assert ImageFolder(f'{url}/s-001.tar', 8).names == ['10.png', '11.png', '12.png', '13.png']
    for form in ('s-{000..003}.tar', 's-007.tar'):
        with pytest.raises(FileNotFoundError, match='there is no such file'):
            ImageFolder(f'{url}/{form}', 8)
    with pytest.raises(ValueError, match=r'a web server lists no files; expected a number in braces'):
        ImageFolder(f'{url}/s-*.tar', 8)


def test_passwords_are_not_shown(server):
    url, _ = server
    place = url.replace('http://', 'http://me:secret@')
    dataset = ImageFolder(f'{place}/s-{{000..001}}.tar', 8)
    assert 'secret' not in f'{dataset.source.root}{dataset.names}{dataset.describe()}{dataset.identity()}'


def test_shards_of_another_file_system_come_through_fsspec(shards, tmp_path):
    fsspec = pytest.importorskip('fsspec')
    memory = fsspec.filesystem('memory')
    for path in shards.iterdir():
        memory.pipe_file(f'/bucket/{path.name}', path.read_bytes())
    local = ImageFolder(shards, 8)
    for root in ('memory://bucket/s-*.tar', 'memory://bucket/s-{000..002}.tar'):
        dataset = ImageFolder(root, 8)
        assert [dataset.source.read(name) for name in dataset.names] == [
            local.source.read(name) for name in local.names
        ]
        assert dataset.identity()['sha256'] == local.identity()['sha256']
    memory.rm('/bucket', recursive=True)
    assert len(ImageFolder('memory://bucket/s-{000..002}.tar', 8)) == 12  # from the cache
    with pytest.raises(FileNotFoundError, match=r'memory://bucket/s-9.tar: there is no such file'):
        ImageFolder('memory://bucket/s-9.tar', 8)
    with pytest.raises(FileNotFoundError, match=r'memory://bucket/x\*.tar: no file there matches'):
        ImageFolder('memory://bucket/x*.tar', 8)
    with pytest.raises(ValueError, match=r'nosuch://bucket/a.tar: fsspec cannot read it: Protocol not known'):
        ImageFolder('nosuch://bucket/a.tar', 8)
    assert ImageFolder(f'file://{shards}/s-000.tar', 8).names == ['00.png', '01.png', '02.png', '03.png']


def test_fsspec_that_is_not_installed_is_one_message(monkeypatch):
    monkeypatch.setattr('eqzoo.data.opening.find_spec', lambda _: None)
    with pytest.raises(ValueError, match=r"s3://bucket/a.tar: this needs fsspec; .*'eqzoo\[webdataset\]'"):
        ImageFolder('s3://bucket/a.tar', 8)


def test_images_have_the_first_say_in_a_folder(shards):
    assert ImageFolder(shards, 8).source.kind == 'set of tars'
    (shards / 'cat').mkdir()
    (shards / 'cat' / '1.png').write_bytes(png(0))
    dataset = ImageFolder(shards, 8)
    assert dataset.names == ['cat/1.png']
    assert dataset.source.left_out == {'.tar': 3}


def test_splits_of_shards_are_folders(tmp_path):
    for split in ('train', 'val'):
        (tmp_path / split).mkdir()
        write_tar(tmp_path / split / 'a.tar', {f'{split}{each}.png': png(each) for each in range(2)})
    assert ImageFolder(tmp_path, 8, below='val').names == ['val/a.tar:val0.png', 'val/a.tar:val1.png']
    assert ImageFolder(tmp_path, 8).classes == ['.']


@pytest.mark.parametrize(
    ('root', 'message'),
    [
        ('{tmp}/x/*.tar', r'x/\*.tar: no such folder or zip'),
        ('{tmp}/shards/s-{{000..004}}.tar', r's-003.tar: no such folder or zip'),
        (['{tmp}/shards/s-000.tar', '{tmp}/a.zip'], r'a.zip is no tar, parquet or Arrow file'),
        (['{tmp}/shards/s-000.tar', '{tmp}/a.parquet'], r'1 parquet files, 1 tars; expected files of one kind'),
        (['{tmp}/shards/s-000.tar'] * 2, r's-000.tar: named twice'),
        ([], 'root is an empty list'),
        ('', r"root is empty; .*'\.' for the current folder"),
        (['{tmp}/shards/s-000.tar', ''], 'root is empty'),
        (['{tmp}/shards', '{tmp}/more'], r'shards and 1 more: .*shards is a folder; .* Expected one folder, which may'),
        ('{tmp}/{{shards,more}}', r'shards,more}: .*shards is a folder; of several places'),
        (['{tmp}/a.parquet', '{tmp}/more'], r'more is a folder; of several places'),
    ],
)
def test_wrong_places_are_one_message(shards, tmp_path, root, message):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        archive.writestr('1.png', png(0))
    (tmp_path / 'a.parquet').write_bytes(b'PAR1')
    (tmp_path / 'more').mkdir()
    root = root.format(tmp=tmp_path) if isinstance(root, str) else [each.format(tmp=tmp_path) for each in root]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        ImageFolder(root, 8)


@pytest.mark.parametrize('root', ['{tmp}/shard*', ['{tmp}/shards']])
def test_one_folder_by_a_pattern_or_in_a_list_is_that_folder(shards, tmp_path, root):
    root = root.format(tmp=tmp_path) if isinstance(root, str) else [each.format(tmp=tmp_path) for each in root]
    assert ImageFolder(root, 8).names == ImageFolder(shards, 8).names


def test_a_list_in_a_config_is_checked(shards):
    from eqzoo.registry import build

    files = [str(path) for path in shards.iterdir()]
    assert len(build(dict(type='ImageFolder', root=files, size=8))) == 12
    with pytest.raises(ValueError, match=r'root'):
        build(dict(type='ImageFolder', root=3, size=8))
