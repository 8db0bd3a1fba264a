"""Downloads from a server that truncates, corrupts, redirects, stalls and refuses."""

import base64
import gzip
import hashlib
import io
import json
import resource
import threading
import zipfile

import pytest

from eqzoo.config import configs_folder
from eqzoo.files import sha256_of
from eqzoo.zoo import cached, fetch, fetch_command, find_model, located, record_of, resolve, weights_files
from eqzoo.zoo.download import CachedFile, cache_folder
from eqzoo.zoo.transfer import CHUNK

CONTENT = bytes(range(256)) * 400  # 102,400 bytes


def ranges(site):
    return [headers.get('Range') for _, headers in site.requests]


def leftovers(path):
    return sorted(each.name for each in path.parent.iterdir() if each.name not in ('.lock', 'eqzoo.json', path.name))


def test_a_file_is_fetched_once(site, patience):
    url = site.add('/a/model.safetensors', CONTENT)
    assert cached(url) is None
    path = fetch(url, patience=patience)
    assert (path.name, path.read_bytes()) == ('model.safetensors', CONTENT)
    assert fetch(url, patience=patience) == cached(url) == located(url) == path
    assert len(site.requests) == 1
    assert leftovers(path) == []


def test_equal_names_are_kept_apart(site, patience):
    first, second = site.add('/a/last.ckpt', b'first'), site.add('/b/last.ckpt', b'second')
    paths = [fetch(url, patience=patience) for url in (first, second)]
    assert [path.read_bytes() for path in paths] == [b'first', b'second']
    assert [path.name for path in paths] == ['last.ckpt', 'last.ckpt']


def test_a_truncated_transfer_goes_on_where_it_stopped(site, patience):
    url = site.add('/model.pth', CONTENT, faults=[('cut', 3 * CHUNK + 10), ('cut', CHUNK + 20)])
    assert fetch(url, patience=patience).read_bytes() == CONTENT
    assert ranges(site) == [None, f'bytes={3 * CHUNK}-', f'bytes={4 * CHUNK}-']


def test_a_later_call_goes_on_too(site, patience):
    url = site.add('/model.pth', CONTENT, faults=[('cut', CHUNK), ('cut', 0), ('cut', 0)])
    with pytest.raises(OSError, match='model.pth: the connection broke, 3 times; 16,384 bytes'):
        fetch(url, patience=patience)
    assert cached(url) is None
    assert fetch(url, patience=patience).read_bytes() == CONTENT
    assert ranges(site)[-1] == f'bytes={CHUNK}-'


def test_a_silent_server_is_left_and_asked_again(site, patience):
    url = site.add('/model.pth', CONTENT, faults=[('stall', 2 * CHUNK)])
    assert fetch(url, patience=patience).read_bytes() == CONTENT
    assert ranges(site) == [None, f'bytes={2 * CHUNK}-']


def test_a_server_silent_to_the_end_is_an_error(site, patience):
    url = site.add('/model.pth', CONTENT, faults=[('stall', CHUNK), ('stall', 0), ('stall', 0)])
    with pytest.raises(OSError, match='model.pth: the server stayed silent, 3 times; 16,384 bytes'):
        fetch(url, patience=patience)


def test_another_version_starts_anew(site, patience):
    url = site.add('/model.pth', b'x' * 100_000, faults=[('cut', CHUNK)] + [('cut', 0)] * 2)
    with pytest.raises(OSError, match='16,384 bytes'):
        fetch(url, patience=patience)
    site.add('/model.pth', CONTENT, etag='"v2"')
    assert fetch(url, patience=patience).read_bytes() == CONTENT


@pytest.mark.parametrize('options', [dict(ranges=False), dict(etag=None), dict(etag='W/"v1"')])
def test_without_ranges_or_versions_a_transfer_starts_anew(site, patience, options):
    url = site.add('/model.pth', CONTENT, faults=[('cut', CHUNK)], **options)
    assert fetch(url, patience=patience).read_bytes() == CONTENT
    assert ranges(site) == [None, f'bytes={CHUNK}-' if 'ranges' in options else None]


def test_a_part_longer_than_the_file_is_thrown_away(site, patience):
    url = site.add('/model.pth', CONTENT)
    place = CachedFile(resolve(url))
    place.folder.mkdir(parents=True)
    place.part.write_bytes(b'x' * 200_000)
    place.part.with_name('model.pth.part.etag').write_text('"v1"')
    assert fetch(url, patience=patience).read_bytes() == CONTENT
    assert ranges(site) == ['bytes=200000-', None]


def test_passing_failures_are_tried_again(site, patience):
    url = site.add('/model.pth', CONTENT, faults=[503, 429])
    assert fetch(url, patience=patience).read_bytes() == CONTENT
    url = site.add('/busy.pth', CONTENT, faults=[503] * 3)
    with pytest.raises(OSError, match='the server answered with status 503, 3 times; 0 bytes are kept'):
        fetch(url, patience=patience)


def test_a_missing_file_is_reported_at_once(site, patience):
    with pytest.raises(FileNotFoundError, match=r'/nowhere.pth: .*\(status 404\)'):
        fetch(f'{site.url}/nowhere.pth', patience=patience)
    assert len(site.requests) == 1
    with pytest.raises(OSError, match='bad.pth: .* status 400'):
        fetch(site.add('/bad.pth', CONTENT, faults=[400]), patience=patience)


def test_a_server_that_is_down_is_reported(patience, site):
    url = site.add('/model.pth', CONTENT)
    site.server.shutdown()
    site.server.server_close()
    with pytest.raises(OSError, match='model.pth: no connection, 3 times'):
        fetch(url, patience=patience)


def test_corrupt_bytes_are_refused_and_discarded(site, patience, zoo):
    url = site.add('/model.pth', CONTENT[:-1] + b'!')
    zoo(dict(Name='model', Weights=url, SHA256=hashlib.sha256(CONTENT).hexdigest()))
    with pytest.raises(ValueError, match=r'expected \w{64} but got \w{64}.* published'):
        fetch(url, patience=patience)
    assert cached(url) is None
    assert leftovers(CachedFile(resolve(url)).path) == []
    site.add('/model.pth', CONTENT)
    assert fetch(url, patience=patience).read_bytes() == CONTENT
    assert record_of(url).published


def test_the_first_download_is_recorded_and_held_to(site, patience):
    url = site.add('/model.pth', CONTENT)
    path = fetch(url, patience=patience)
    record = record_of(url)
    assert (record.sha256, record.size, record.published) == (hashlib.sha256(CONTENT).hexdigest(), 102_400, False)
    path.unlink()
    site.add('/model.pth', b'something else')
    with pytest.raises(ValueError, match='recorded on its first download'):
        fetch(url, patience=patience)
    assert cached(url) is None


def test_a_file_cut_short_in_the_cache_is_not_taken(site, patience):
    path = fetch(site.add('/model.pth', CONTENT), patience=patience)
    path.write_bytes(CONTENT[:5])
    assert cached(f'{site.url}/model.pth') is None
    assert fetch(f'{site.url}/model.pth', patience=patience).read_bytes() == CONTENT


def test_redirects_are_followed_and_the_token_stays_with_its_host(site, patience, monkeypatch):
    site.add('/store/blob', CONTENT)
    site.add('/org/repo/resolve/main/model.pth', b'', moved_to=f'{site.other_name}/store/blob', token='secret')
    monkeypatch.setenv('HF_ENDPOINT', site.url)
    monkeypatch.setenv('HF_TOKEN', 'secret')
    path = fetch('hf://org/repo/model.pth', patience=patience)
    assert path.read_bytes() == CONTENT
    assert [(path, headers.get('Authorization')) for path, headers in site.requests] == [
        ('/org/repo/resolve/main/model.pth', 'Bearer secret'),
        ('/store/blob', None),
    ]
    assert [path for path, _ in site.heads] == ['/org/repo/resolve/main/model.pth']  # only the Hub gets HEAD


def test_the_token_is_for_the_hub_alone(site, patience, monkeypatch):
    monkeypatch.setenv('HF_TOKEN', 'secret')
    fetch(site.add('/model.pth', CONTENT), patience=patience)
    assert 'Authorization' not in site.requests[0][1]


def test_a_host_whose_name_only_begins_like_the_hub_gets_no_token(site, patience, monkeypatch):
    monkeypatch.setenv('HF_ENDPOINT', site.url[:-1])
    monkeypatch.setenv('HF_TOKEN', 'secret')
    fetch(site.add('/model.pth', CONTENT), patience=patience)
    assert 'Authorization' not in site.requests[0][1]


def test_a_gated_file_says_where_its_licence_is(site, patience, zoo):
    url = site.add('/model.pth', CONTENT, token='secret')
    zoo(dict(Name='model', Weights=url, Gated='https://example.org/licence'))
    with pytest.raises(PermissionError, match=r'\(status 401\).* https://example.org/licence '):
        fetch(url, patience=patience)
    assert len(site.requests) == 1


@pytest.mark.parametrize('stated', [CONTENT, b'something else'], ids=['right', 'wrong'])
def test_the_hash_that_the_hub_states_is_checked(site, patience, monkeypatch, stated):
    site.add('/org/repo/resolve/main/model.pth', CONTENT, sha256=hashlib.sha256(stated).hexdigest())
    monkeypatch.setenv('HF_ENDPOINT', site.url)
    if stated == CONTENT:
        assert fetch('hf://org/repo/model.pth', patience=patience).read_bytes() == CONTENT
        assert not record_of('hf://org/repo/model.pth').published
        return
    with pytest.raises(ValueError, match='stated by the Hub'):
        fetch('hf://org/repo/model.pth', patience=patience)
    assert cached('hf://org/repo/model.pth') is None


def test_a_file_of_the_hub_resumes_in_a_later_call(site, patience, monkeypatch):
    site.add('/org/repo/resolve/main/model.pth', CONTENT, faults=[('cut', CHUNK), 503, ('cut', 0)])
    monkeypatch.setenv('HF_ENDPOINT', site.url)
    with pytest.raises(OSError, match='3 times; 16,384 bytes'):
        fetch('hf://org/repo/model.pth', patience=patience)
    assert fetch('hf://org/repo/model.pth', patience=patience).read_bytes() == CONTENT
    assert ranges(site) == [None, *[f'bytes={CHUNK}-'] * 3]


def test_a_mirror_serves_the_hub_and_shares_its_place(site, patience, monkeypatch):
    site.add('/org/repo/resolve/v2/vae/model.pth', CONTENT)
    monkeypatch.setenv('HF_ENDPOINT', site.url + '/')
    path = fetch('hf://org/repo@v2/vae/model.pth', patience=patience)
    monkeypatch.delenv('HF_ENDPOINT')
    assert cached('https://huggingface.co/org/repo/resolve/v2/vae/model.pth') == path


def test_offline_only_the_cache_is_used(site, patience, monkeypatch):
    here, there = site.add('/here.pth', CONTENT), site.add('/there.pth', CONTENT)
    path = fetch(here, patience=patience)
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    assert fetch(here, patience=patience) == path
    with pytest.raises(OSError, match='there.pth is not in the cache, and HF_HUB_OFFLINE is set'):
        fetch(there, patience=patience)


def zipped(**members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, 'w') as archive:
        for name, content in members.items():
            archive.writestr(name.replace('_', '/') + '.ckpt', content)
    return data.getvalue()


def test_of_an_archive_the_member_is_kept(site, patience, zoo):
    url = site.add('/kl-f8.zip', zipped(kl_model=CONTENT, other=b'x'), faults=[('cut', CHUNK)])
    zoo({'Name': 'model', 'Weights': url, 'Archive Member': 'model.ckpt'})
    path = fetch('eqzoo://model', patience=patience)
    assert (path.name, path.read_bytes()) == ('model.ckpt', CONTENT)
    assert record_of('eqzoo://model').sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert leftovers(path) == []


@pytest.mark.parametrize(
    ('content', 'message'),
    [(zipped(other=b'x'), r'has no model.ckpt; it has other.ckpt'), (b'no zip', r'is no whole zip archive \(.*; try')],
)
def test_a_wrong_archive_is_refused(site, patience, zoo, content, message):
    url = site.add('/kl-f8.zip', content)
    zoo({'Name': 'model', 'Weights': url, 'Archive Member': 'model.ckpt'})
    with pytest.raises(ValueError, match=message):
        fetch(url, patience=patience)
    assert cached(url) is None


def test_a_full_disk_leaves_no_file(site, patience):
    url = site.add('/model.pth', CONTENT)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))  # a write beyond it fails, as on a full disk
    try:
        with pytest.raises(OSError, match='File too large'):
            fetch(url, patience=patience)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert cached(url) is None
    assert fetch(url, patience=patience).read_bytes() == CONTENT
    assert ranges(site) == [None, 'bytes=50000-']


def test_two_at_once_download_once(site, patience):
    url = site.add('/model.pth', CONTENT * 50)
    found = []
    threads = [threading.Thread(target=lambda: found.append(fetch(url, patience=patience))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(site.requests) == 1


@pytest.mark.parametrize(('content', 'message'), [(b'', 'sent nothing'), (b'\n<!DOCTYPE HTML>..', 'sent a web page')])
def test_an_answer_that_is_no_file_is_refused(site, patience, content, message):
    url = site.add('/model.safetensors', content)
    with pytest.raises(OSError, match=f'{message}; expected a file; correct the URL'):
        fetch(url, patience=patience)
    assert cached(url) is None
    assert record_of(url) is None


def test_a_packed_answer_is_unpacked_within_bounds(site, patience):
    url = site.add('/a.safetensors', gzip.compress(CONTENT), encoding='gzip')
    assert fetch(url, patience=patience).read_bytes() == CONTENT
    bomb = site.add('/b.safetensors', gzip.compress(bytes(50_000_000)), encoding='gzip')
    with pytest.raises(OSError, match='unpacks to more than 20 times its bytes'):
        fetch(bomb, patience=patience)
    assert CachedFile(resolve(bomb)).part.stat().st_size < 10_000_000


def test_a_password_leaves_no_trace(site, patience, cache, capsys):
    """Not in the cache, not in the note, not in a message; the server gets it."""
    url = site.add('/a.safetensors?token=verysecret', CONTENT).replace('://', '://me:secret@')
    path = fetch(url, patience=patience)
    assert path.name == 'a.safetensors'
    assert record_of(url).url == site.url + '/a.safetensors?…'
    assert not [each for each in cache.rglob('*') if 'secret' in str(each)]
    assert base64.b64decode(site.requests[0][1]['Authorization'].split()[1]) == b'me:secret'
    failures = []
    for refused in ('/none?key=secret', '/gone?key=secret'):
        site.pages['/gone?key=secret'] = site.pages['/a.safetensors?token=verysecret']
        site.pages['/gone?key=secret'].faults = [403]
        with pytest.raises(OSError, match='download: http') as error:
            fetch((site.url + refused).replace('://', '://me:secret@'), patience=patience)
        failures.append(str(error.value))
    with pytest.raises(FileNotFoundError) as error:
        located('https://me:secret@example.org/a.pt?token=secret')
    assert 'secret' not in ''.join([*failures, str(error.value), *capsys.readouterr()])


@pytest.mark.parametrize('note', ['{', '[]', '{"url": 1}', '{"url":"","sha256":"x","size":1,"published":1,"date":""}'])
def test_a_damaged_note_is_one_message(site, patience, note):
    url = site.add('/a.safetensors', CONTENT)
    path = fetch(url, patience=patience)
    path.with_name('eqzoo.json').write_text(note)
    with pytest.raises(ValueError, match=r'eqzoo\.json is damaged; delete .* to download the file again'):
        fetch(url, patience=patience)


class TestFoldersOfTheHub:
    @pytest.fixture(autouse=True)
    def _mirror(self, site, monkeypatch):
        monkeypatch.setenv('HF_ENDPOINT', site.url)

    def add(self, site, **files):
        for name, content in files.items():
            site.add(f'/org/name-v1.5/resolve/main/{name.replace("__", ".")}', content)

    def test_a_folder_of_diffusers_is_fetched_once(self, site, patience):
        self.add(site, config__json=b'{}', diffusion_pytorch_model__fp16__safetensors=CONTENT)
        assert cached('hf://org/name-v1.5') is None
        with pytest.raises(FileNotFoundError, match=r'fetch it: python tools/download\.py hf://org/name-v1\.5$'):
            located('hf://org/name-v1.5')
        folder = fetch('hf://org/name-v1.5', patience=patience)
        assert sorted(each.name for each in folder.iterdir()) == [
            'config.json',
            'diffusion_pytorch_model.fp16.safetensors',
        ]
        assert (folder / 'diffusion_pytorch_model.fp16.safetensors').read_bytes() == CONTENT
        count = len(site.requests)
        assert fetch('hf://org/name-v1.5', patience=patience) == cached('hf://org/name-v1.5') == folder
        assert len(site.requests) == count

    def test_a_file_that_was_deleted_from_the_cache_is_fetched_again(self, site, patience):
        self.add(site, config__json=b'{}', diffusion_pytorch_model__safetensors=CONTENT)
        folder = fetch('hf://org/name-v1.5', patience=patience)
        (folder / 'diffusion_pytorch_model.safetensors').resolve().unlink()
        assert cached('hf://org/name-v1.5') is None
        assert fetch('hf://org/name-v1.5', patience=patience) == cached('hf://org/name-v1.5') == folder
        assert (folder / 'diffusion_pytorch_model.safetensors').read_bytes() == CONTENT
        assert sum('config.json' in path for path, _ in site.requests) == 1

    def test_shards_are_fetched_and_stay_in_their_folder(self, site, patience):
        index = json.dumps(dict(weight_map=dict(a='one.safetensors', b='two.safetensors', c='one.safetensors')))
        name = 'diffusion_pytorch_model.safetensors.index.json'
        self.add(site, config__json=b'{}', one__safetensors=b'1', two__safetensors=b'2', **{name: index.encode()})
        folder = fetch('hf://org/name-v1.5', patience=patience)
        assert sorted(each.name for each in folder.iterdir()) == [
            'config.json',
            name,
            'one.safetensors',
            'two.safetensors',
        ]

    @pytest.mark.parametrize('shard', ['../../x', '/etc/passwd', 'a/b', '', '..', 'a\x1b[2J', None, 3])
    def test_shards_cannot_leave_their_folder(self, site, patience, shard):
        index = json.dumps(dict(weight_map=dict(a=shard)))
        self.add(site, config__json=b'{}', diffusion_pytorch_model__bin__index__json=index.encode())
        with pytest.raises(ValueError, match='is no index of shards'):
            fetch('hf://org/name-v1.5', patience=patience)

    def test_other_repositories_are_named(self, site, patience):
        with pytest.raises(FileNotFoundError, match=r'has no config\.json; .* give hf://org/name-v1\.5/vae'):
            fetch('hf://org/name-v1.5', patience=patience)
        self.add(site, config__json=b'{}')
        with pytest.raises(FileNotFoundError, match=r'has no diffusion_pytorch_model\.safetensors or another'):
            fetch('hf://org/name-v1.5/', patience=patience)


def test_a_repository_of_the_hub_is_suggested():
    with pytest.raises(FileNotFoundError, match=r'a repository of the Hugging Face Hub is hf://stabilityai/sd-vae'):
        fetch('stabilityai/sd-vae')
    with pytest.raises(FileNotFoundError, match=r'correct weights=PATH\.$'):
        fetch('/work_dirs/sd-vae')


@pytest.mark.parametrize(
    ('weights', 'files'),
    [
        (None, []),
        ('a.pth', ['a.pth']),
        ('a.pth,b.pth', ['a.pth', 'b.pth']),
        (['a.pth', 'b.pth'], ['a.pth', 'b.pth']),
        ('https://x.org/a,b.pth', ['https://x.org/a,b.pth']),
        ('https://x.org/a.pth,https://x.org/b.pth', ['https://x.org/a.pth', 'https://x.org/b.pth']),
    ],
)
def test_the_files_of_an_argument(weights, files):
    assert weights_files(weights) == files


def test_a_comma_in_a_name_is_no_pair(tmp_path):
    (tmp_path / 'a,b.pth').touch()
    assert weights_files(str(tmp_path / 'a,b.pth')) == [str(tmp_path / 'a,b.pth')]


def test_local_paths_are_themselves(tmp_path):
    path = tmp_path / 'model.pth'
    path.write_bytes(b'x')
    assert fetch(str(path)) == cached(path) == path
    assert fetch_command(str(path)) is None
    with pytest.raises(FileNotFoundError, match=r"no file 'nowhere.pth'; correct weights=PATH"):
        fetch('nowhere.pth')


def test_a_missing_file_comes_with_its_command():
    with pytest.raises(FileNotFoundError, match=r"'eqzoo://sd-vae'; fetch it: python tools/download.py sd-vae$"):
        located('eqzoo://sd-vae')
    url = 'https://huggingface.co/stabilityai/sdxl-vae/resolve/main/sdxl_vae.safetensors'
    assert fetch_command(url) == 'python tools/download.py sdxl-vae'
    assert fetch_command('hf://a/b/c d.pth') == "python tools/download.py 'hf://a/b/c d.pth'"


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        ('hf://org/file.pth', r"'hf://org/file.pth'; expected hf://org/repository\[@rev"),
        ('eqzoo://taef2', 'expected eqzoo://taef2/taef2_encoder.pth, eqzoo://taef2/taef2_dec'),
        ('eqzoo://taesd/x.pth', 'expected eqzoo://taesd/diffusion_pytorch_model.safetensors'),
        ('eqzoo://sd-vea', r"Unknown model 'sd-vea'. Did you mean 'sd-vae'\?"),
        ('https://example.org/', 'https://example.org/.* names no file'),
        ('https://example.org/a/..', 'https://example.org/a/.* names no file'),
        ('https://example.org/a/eqzoo.json', 'names no file'),
        ('https://example.org/a\x1b.pth', 'names no file'),
    ],
)
def test_sources_that_name_nothing(source, message):
    with pytest.raises(ValueError, match=message):
        resolve(source)


def test_the_cache_is_where_the_environment_puts_it(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / 'cache'
    monkeypatch.delenv('EQZOO_CACHE')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
    assert cache_folder() == tmp_path / 'xdg' / 'eqzoo'


def test_weights_that_come_with_eqzoo_are_where_they_were_installed(monkeypatch, tmp_path):
    monkeypatch.setenv('EQZOO_CACHE', str(tmp_path / 'cache'))
    place = configs_folder() / 'demo/clothes_f8.safetensors'
    assert cached('eqzoo://clothes-f8') == fetch('eqzoo://clothes-f8') == located('eqzoo://clothes-f8') == place
    assert record_of('eqzoo://clothes-f8') is None
    assert sha256_of(place) == find_model('clothes-f8').files[0].sha256
    assert not (tmp_path / 'cache').exists()
    monkeypatch.setattr('eqzoo.zoo.download.configs_folder', lambda: tmp_path)
    assert cached('eqzoo://clothes-f8') is None
    with pytest.raises(FileNotFoundError, match='which comes with eqzoo, is missing; install eqzoo again'):
        fetch('eqzoo://clothes-f8')
