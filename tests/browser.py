"""A headless browser for pages: `look` opens them in windows of several widths, and returns what a script measures."""

import json
import mimetypes
import re
import shutil
import subprocess
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

_CHROMIUM = ('chromium', 'chromium-browser', 'google-chrome')
_FLAGS = [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--hide-scrollbars',
    '--enable-logging=stderr',
]
_CONSOLE = re.compile(r'CONSOLE[:(]\d+\)?\] "(.*)", source: (\S*)')
_AT_ONCE = 4
_PATIENCE = 600  # seconds
# Frames of one origin: the page around them can inspect them, though some may run no script themselves.
# A frame's width is the window's, to the page in it. A page is loaded once, and is gone before the next.
_PROBE = """<!doctype html><body><script>
const names = {names}, widths = {widths}, found = [], measure = new Function('page', 'root', 'own', {script});
async function look(name) {{
  const frame = document.createElement('iframe');
  Object.assign(frame, {{src: '/' + name, width: widths[0], height: 800}});
  await new Promise(done => {{ frame.onload = done; document.body.append(frame); }});
  const page = frame.contentDocument;
  await page.fonts.ready;
  for (const width of widths) {{
    frame.width = width;
    await new Promise(done => setTimeout(done, {pause}));
    const own = frame.contentWindow.performance.getEntriesByType('resource').map(each => each.name);
    found.push([name, width, measure(page, page.documentElement, own)]);
  }}
  frame.remove();
}}
async function work() {{ while (names.length) await look(names.shift()); }}
Promise.all(Array.from({{length: {at_once}}}, work)).then(() => found, error => String(error.stack)).then(
  answer => fetch('/found', {{method: 'POST', body: JSON.stringify(answer)}}));
</script>"""


class Seen(NamedTuple):
    """What the browser saw.

    Args:
        found: What the script returned, by page and width.
        elsewhere: Addresses on other hosts that were asked for, the browser's own among them; none was answered.
        missing: Paths of this host that do not exist.
        console: Warnings and errors in the console, as (message, source).
    """

    found: dict
    elsewhere: list
    missing: list
    console: list


class _Handler(BaseHTTPRequestHandler):
    """Serve files, and act as a proxy that records all other requests and answers none."""

    def __init__(self, *args, files, seen, answers, posted):
        self.files, self.seen, self.answers, self.posted = files, seen, answers, posted
        super().__init__(*args)

    def do_GET(self):
        if self._elsewhere():
            return
        name = urlsplit(self.path).path.lstrip('/')
        content = self.files.get(name)
        if content is None:
            self.seen.missing.append(name)
        kind = 'text/html; charset=utf-8' if name.endswith('.html') else mimetypes.guess_type(name)[0]
        self._answer(404 if content is None else 200, kind or 'application/octet-stream', content or b'')

    def do_POST(self):
        if self._elsewhere():
            return
        self.answers.append(json.loads(self.rfile.read(int(self.headers['Content-Length']))))
        self._answer(200, 'text/plain', b'')
        self.posted.set()

    def do_CONNECT(self):
        self.seen.elsewhere.append(self.path)
        self.send_error(502)

    def _elsewhere(self):
        # the browser itself reports to its makers, whatever its flags forbid
        elsewhere = urlsplit(self.path).hostname not in (None, '127.0.0.1')
        if elsewhere:
            self.seen.elsewhere.append(self.path)
            self._answer(404, 'text/plain', b'')
        return elsewhere

    def _answer(self, status, kind, content):
        self.send_response(status)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture(scope='session')
def look(tmp_path_factory):
    """A function (files by name, widths, script) → `Seen`: all pages among the files, in windows of these widths.

    The script is the body of a function with the arguments `page` (the document), `root` (its
    element) and `own` (the resources that the page loaded); it returns JSON. `pause` is the time in milliseconds
    that a page's own scripts have after it was loaded, and after each change of the window's width.
    """
    chromium = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if chromium is None:
        pytest.skip(f'no browser: none of {", ".join(_CHROMIUM)} is installed (apt-get install chromium)')

    def function(files, widths, script, *, pause=0):
        names = [name for name in files if name.endswith('.html')]
        values = dict(names=json.dumps(names), widths=json.dumps(widths), script=json.dumps(script), pause=pause)
        probe = _PROBE.format(at_once=_AT_ONCE, **values)
        seen, answers, posted = Seen({}, [], [], []), [], Event()
        files = {'favicon.ico': b'', **files, 'probe.html': probe.encode()}
        handler = partial(_Handler, files=files, seen=seen, answers=answers, posted=posted)
        with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
            thread = Thread(target=server.serve_forever)
            thread.start()
            address = f'http://127.0.0.1:{server.server_port}'
            profile = tmp_path_factory.mktemp('profile')
            command = [chromium, *_FLAGS, f'--user-data-dir={profile}', f'--proxy-server={address}']
            command += ['--proxy-bypass-list=<-loopback>', '--window-size=1600,1200', '--remote-debugging-port=0']
            log = profile / 'log.txt'
            try:
                with log.open('w') as errors:
                    browser = subprocess.Popen([*command, f'{address}/probe.html'], stdout=errors, stderr=errors)
                    try:
                        assert posted.wait(_PATIENCE), f'no answer of {chromium}: {log.read_text()[-2000:]}'
                    finally:
                        browser.terminate()
                        browser.wait(30)
            finally:
                server.shutdown()
                thread.join()
        seen.console.extend(_CONSOLE.findall(log.read_text(errors='replace')))
        (answer,) = answers
        assert isinstance(answer, list), f'the script failed: {answer}'
        seen.found.update({(name, width): measured for name, width, measured in answer})
        return seen

    return function
