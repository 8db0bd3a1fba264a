"""Fixtures: a result as tools/test.py writes it, and a headless browser for pages."""

import html
import json
import shutil
import subprocess
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

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
]
# Frames of one origin: the page around them can inspect them, though they run no script themselves.
_PROBE = """<!doctype html><body>{frames}<pre id="found"></pre><script>
onload = () => {{
  const found = [...document.querySelectorAll('iframe')].map(frame => {{
    const page = frame.contentDocument, root = page.documentElement;
    const own = frame.contentWindow.performance.getEntriesByType('resource').map(each => each.name);
    return (new Function('page', 'root', 'own', {script}))(page, root, own);
  }});
  document.getElementById('found').textContent = JSON.stringify(found);
}};
</script>"""


class _Handler(BaseHTTPRequestHandler):
    """Serve pages, and act as a proxy that records all other requests and answers none."""

    def __init__(self, *args, pages, asked):
        self.pages, self.asked = pages, asked
        super().__init__(*args)

    def do_GET(self):
        self.asked.append(self.path)
        page = self.pages.get(self.path.rsplit('/', 1)[-1])
        self.send_response(200 if page else 404)
        self.send_header('Content-Type', 'text/html; charset=utf-8')
        self.send_header('Content-Length', str(len(page or b'')))
        self.end_headers()
        self.wfile.write(page or b'')

    def do_CONNECT(self):
        self.asked.append(self.path)
        self.send_error(502)

    def log_message(self, *args):
        pass


@pytest.fixture(scope='session')
def look(tmp_path_factory):
    """A function (pages by name, widths, script) → the script's results, and the requests to other hosts.

    The results are by page and width. The requests include the browser's own, none of which leave this machine.

    The script is the body of a function with the arguments `page` (the document), `root` (its
    element) and `own` (the resources that the page loaded); it returns JSON.
    """
    chromium = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if chromium is None:
        pytest.skip(f'no browser: none of {", ".join(_CHROMIUM)} is installed (apt-get install chromium)')

    def function(pages, widths, script):
        places = [(name, width) for name in pages for width in widths]
        frames = ''.join(f'<iframe src="{name}" width="{width}" height="800"></iframe>' for name, width in places)
        probe = _PROBE.format(frames=frames, script=json.dumps(script))
        asked = []
        handler = partial(_Handler, pages={**pages, 'probe.html': probe.encode()}, asked=asked)
        with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
            thread = Thread(target=server.serve_forever)
            thread.start()
            try:
                address = f'127.0.0.1:{server.server_port}'
                done = subprocess.run(
                    [
                        chromium,
                        *_FLAGS,
                        f'--user-data-dir={tmp_path_factory.mktemp("profile")}',
                        f'--proxy-server=http://{address}',
                        '--proxy-bypass-list=<-loopback>',
                        '--window-size=1600,1200',
                        '--timeout=30000',
                        '--dump-dom',
                        f'http://{address}/probe.html',
                    ],
                    capture_output=True,
                    text=True,
                    timeout=60,
                    check=True,
                )
            finally:
                server.shutdown()
                thread.join()
        text = done.stdout.split('<pre id="found">')[1].split('</pre>')[0]
        found = dict(zip(places, json.loads(html.unescape(text)), strict=True))
        return found, [path for path in asked if not path.startswith(f'http://{address}/')]

    return function


@pytest.fixture(scope='session')
def result():
    """A function → a test's result; its arguments change how it was measured."""

    def function(*, psnr=25.614, protocol='uint8', num_images=5000, **card):
        return dict(
            metrics={'psnr': psnr, 'ssim': 0.7045, 'eq_err/rotation': 0.1931, 'latent_std': None},
            cases={'eq_err/rotation/90': 0.2, 'eq_err/rotation/180': 0.19},
            curves=[
                dict(
                    title='Error over angle',
                    x='angle',
                    y='error',
                    log=False,
                    series=[dict(label='latent', x=[90, 180], y=[0.2, 0.19], low=[0.1, 0.15], high=[0.3, 0.2])],
                )
            ],
            card={
                'config': 'configs/eqvae/sd16_rot_scale.py',
                'weights': dict(file='iter_1.pth', sha256='ab' * 32),
                'data': dict(kind='ImageFolder', root='val.zip', crop='center', size=256, sha256='cd' * 32),
                'num_images': num_images,
                'unreadable': ['broken.png'],
                'evaluators': dict(
                    ReconstructionMetric=dict(metrics=['psnr', 'ssim'], protocol=protocol),
                    EquivarianceError=dict(metrics=['eq_err/rotation'], cases=dict(rotation=['90', '180'])),
                    LatentStatistics=dict(metrics=['latent_std'], latent='posterior mean'),
                ),
                'eqzoo': '0.1.0',
                'torch': '2.6.0',
                **card,
            },
        )

    return function


@pytest.fixture
def write(tmp_path):
    """A function (name, content) → the path of a metrics.json with that content, in a folder of that name."""

    def function(name, content):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        path = tmp_path / name / 'metrics.json'
        path.write_text(json.dumps(content))
        return path

    return function
