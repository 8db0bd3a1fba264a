"""A real web server on this machine that misbehaves on request, and a separate cache for each test."""

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from eqzoo import loading
from eqzoo.zoo import Patience, index


@dataclass
class Page:
    """One file of the server.

    Args:
        content: Its bytes.
        etag: Its version; None sends none.
        ranges: Whether the server honours Range.
        faults: Failures of the first requests, one each: a status; ('cut', n): n bytes, then the
            connection ends; ('stall', n): n bytes, then silence.
        moved_to: Another URL, to which every request is redirected.
        token: The only token that is accepted.
        sha256: The hash that the Hub states for the file, in the answer to HEAD.
        encoding: The Content-Encoding of `content`.
    """

    content: bytes
    etag: str | None = '"v1"'
    ranges: bool = True
    faults: list = field(default_factory=list)
    moved_to: str | None = None
    token: str | None = None
    sha256: str | None = None
    encoding: str | None = None


class Site:
    """The server's pages by path, and the GET and HEAD requests that it got."""

    def __init__(self):
        self.pages, self.requests, self.heads = {}, [], []
        self.server = ThreadingHTTPServer(('127.0.0.1', 0), handler_of(self))
        self.server.daemon_threads = True
        self.url = f'http://127.0.0.1:{self.server.server_port}'
        self.other_name = f'http://localhost:{self.server.server_port}'
        self.silence = threading.Event()
        threading.Thread(target=self.server.serve_forever, kwargs=dict(poll_interval=0.01), daemon=True).start()

    def add(self, path, content, **options):
        self.pages[path] = Page(content, **options)
        return self.url + path

    def close(self):
        self.silence.set()
        self.server.shutdown()
        self.server.server_close()


def handler_of(site):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            """Answer as the Hub does: the hash of a large file is its linked ETag."""
            page = site.pages.get(self.path)
            site.heads.append((self.path, dict(self.headers)))
            if page is None:
                self.answer(404)
            elif page.token is not None and self.headers.get('Authorization') != f'Bearer {page.token}':
                self.answer(401)
            else:
                linked = {'X-Linked-Etag': f'"{page.sha256}"'} if page.sha256 else {}
                moved = {'Location': page.moved_to} if page.moved_to else {}
                self.answer(
                    302 if moved else 200, **{'X-Repo-Commit': '0' * 40, 'ETag': page.etag or '', **linked, **moved}
                )

        def do_GET(self):
            page = site.pages.get(self.path)
            if not self.path.startswith('/api/'):  # huggingface_hub asks the Hub about itself
                site.requests.append((self.path, dict(self.headers)))
            fault = page.faults.pop(0) if page is not None and page.faults else None
            if page is None or isinstance(fault, int):
                self.answer(404 if page is None else fault)
            elif page.token is not None and self.headers.get('Authorization') != f'Bearer {page.token}':
                self.answer(401)
            elif page.moved_to is not None:
                self.answer(302, Location=page.moved_to)
            else:
                self.send(page, fault)

        def send(self, page, fault):
            wanted = self.headers.get('Range')
            same = self.headers.get('If-Range') in (None, page.etag)
            start = int(wanted[len('bytes=') : -1]) if wanted and page.ranges and same else 0
            if wanted and page.ranges and same and start >= len(page.content):
                self.answer(416)
                return
            body = page.content[start:]
            headers = {'Content-Length': len(body)} | ({'ETag': page.etag} if page.etag else {})
            headers |= {'Content-Encoding': page.encoding} if page.encoding else {}
            if wanted and page.ranges and same:
                headers['Content-Range'] = f'bytes {start}-{len(page.content) - 1}/{len(page.content)}'
            self.answer(206 if 'Content-Range' in headers else 200, body='later', **headers)
            kind, count = fault or (None, len(body))
            self.wfile.write(body[:count])
            if kind == 'stall':
                site.silence.wait(5)
            if kind is not None:
                self.close_connection = True

        def answer(self, status, body=None, **headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace('_', '-'), str(value))
            if body is None:
                self.send_header('Content-Length', '0')
            self.end_headers()

    return Handler


@pytest.fixture
def site():
    server = Site()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    for name in ('HF_ENDPOINT', 'HF_TOKEN', 'HF_HUB_OFFLINE'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('EQZOO_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setenv('NO_PROXY', '*')
    return tmp_path / 'cache'


@pytest.fixture
def patience():
    return Patience(connect=2, read=0.3, attempts=3, pause=0.01)


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """Put models into an index of its own: `zoo(dict(Name=…, Weights=…))`."""
    folder = tmp_path / 'configs'
    folder.mkdir()

    def fill(*entries):
        complete = [dict(Metadata=dict(Parameters=1), License='MIT', Config='configs/model.py') | e for e in entries]
        (folder / 'metafile.yml').write_text(yaml.safe_dump(dict(Models=complete)))
        index.models.cache_clear()
        return folder

    for module in (index, loading):
        monkeypatch.setattr(module, 'configs_folder', lambda: folder)
    yield fill
    index.models.cache_clear()
