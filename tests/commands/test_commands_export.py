"""`tools/convert.py` for other people: precision, model cards, uploads; what it prints, and what it refuses."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import pytest
import torch
import yaml
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file

from eqzoo.autoencoders import KLAutoencoder, TinyAutoencoder
from eqzoo.checkpoints.keys import to_ldm
from eqzoo.checkpoints.write import write_normalization
from eqzoo.commands.cli import run
from eqzoo.commands.convert import convert
from eqzoo.commands.train import train
from eqzoo.loading import load_autoencoder

TOKEN = 'hf_verysecrettoken'

# of httpx, about how huggingface_hub sends large files
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")


class Hub:
    """A stand-in for the Hub on this machine: repositories, uploads of small and of large files, commits."""

    def __init__(self, status=None):
        self.repositories, self.blobs, self.authorizations = {}, {}, set()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def log_message(self, *_):
                pass

            def answer(self, status, content):
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                body = self.rfile.read(int(self.headers['Content-Length']))
                hub.authorizations.add(self.headers.get('Authorization'))
                if status is not None:
                    self.answer(status, {'error': 'no'})
                else:
                    self.answer(200, hub.reply(self.path, body))

            def do_PUT(self):
                hub.blobs[self.path.rpartition('/')[2]] = self.rfile.read(int(self.headers['Content-Length']))
                self.answer(200, {})

        self.server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.server.daemon_threads = True
        self.url = f'http://127.0.0.1:{self.server.server_port}'
        threading.Thread(target=self.server.serve_forever, kwargs=dict(poll_interval=0.01), daemon=True).start()

    def reply(self, path, body):
        if path == '/api/repos/create':
            asked = json.loads(body)
            name = f'{asked["organization"]}/{asked["name"]}'
            self.repositories.setdefault(name, {}) if asked['visibility'] == 'private' else None
            return {'url': f'{self.url}/{name}'}
        if path == '/api/validate-yaml':  # of a model card
            return {'errors': [], 'warnings': []}
        if '/preupload/' in path:
            files = json.loads(body)['files']
            modes = [
                dict(each, uploadMode='lfs' if each['path'].endswith('.safetensors') else 'regular') for each in files
            ]
            return {
                'files': [dict(path=each['path'], uploadMode=each['uploadMode'], shouldIgnore=False) for each in modes]
            }
        if path.endswith('/info/lfs/objects/batch'):
            objects = [
                dict(
                    oid=each['oid'], size=each['size'], actions=dict(upload=dict(href=f'{self.url}/blob/{each["oid"]}'))
                )
                for each in json.loads(body)['objects']
            ]
            return {'objects': objects}
        name = '/'.join(path.split('/')[3:5])
        for line in map(json.loads, body.splitlines()):
            value = line['value']
            if line['key'] == 'file':
                self.repositories[name][value['path']] = base64.b64decode(value['content'])
            elif line['key'] == 'lfsFile':
                blob = self.blobs[value['oid']]
                assert hashlib.sha256(blob).hexdigest() == value['oid']
                self.repositories[name][value['path']] = blob
        return {'commitUrl': f'{self.url}/{name}/commit/{"0" * 40}', 'commitOid': '0' * 40}


@pytest.fixture
def hub(monkeypatch):
    hubs = []

    def start(**options):
        hubs.append(Hub(**options))
        monkeypatch.setenv('HF_ENDPOINT', hubs[-1].url)
        monkeypatch.setenv('HF_TOKEN', TOKEN)
        monkeypatch.setenv('NO_PROXY', '*')
        # its storage of chunks has a protocol of its own, which huggingface_hub leaves to a compiled package
        monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_DISABLE_XET', True)
        return hubs[-1]

    yield start
    for each in hubs:
        each.server.shutdown()
        each.server.server_close()


@pytest.fixture
def source(tmp_path):
    """A bare file of a tiny autoencoder as diffusers names it."""
    model = TinyAutoencoder(num_blocks=(1, 1), width=8)
    save_file({k: v for k, v in model.state_dict().items() if not k.startswith('norm')}, tmp_path / 'a.safetensors')
    return tmp_path / 'a.safetensors'


def run_convert(*words):
    run(convert, [str(word) for word in words])


def test_precision(source, tmp_path):
    before = load_file(source)
    for dtype, expected in (('fp16', torch.float16), ('bf16', torch.bfloat16), ('fp32', torch.float32)):
        out = tmp_path / f'{dtype}.safetensors'
        run_convert(source, out, '--to', 'eqzoo', '--dtype', dtype)
        after = load_file(out)
        for key, value in before.items():
            assert torch.equal(after[f'autoencoder.{key}'], value.to(expected))
    save_file({**before, 'encoder.layers.0.bias': torch.full((8,), 1e6)}, source)
    with pytest.raises(
        SystemExit, match=r'--dtype fp16 \(bf16 and fp32 .* infinite values in encoder\.layers\.0\.bias'
    ):
        run_convert(source, tmp_path / 'b.safetensors', '--to', 'eqzoo', '--dtype', 'fp16')


def test_comfyui_from_the_command(tmp_path, capsys):
    model = KLAutoencoder(block_out_channels=(128, 256, 512))
    state = {key: value for key, value in model.state_dict().items() if not key.startswith('normalization.')}
    torch.save(dict(state_dict=to_ldm(state)), tmp_path / 'a.ckpt')
    out = tmp_path / 'my.safetensors'
    run_convert(tmp_path / 'a.ckpt', out, '--to', 'comfyui', '--dtype', 'fp16', '--scale', '0.18')
    printed = capsys.readouterr().out
    assert 'normalisation  shift 0.0, scale 0.18\n' in printed
    assert printed.endswith(f"import eqzoo\nautoencoder = eqzoo.load('{out}')\n")
    written = load_file(out)
    assert {value.dtype for value in written.values()} == {torch.float16}
    assert all(torch.equal(written[key], value.half()) for key, value in to_ldm(state).items())
    with pytest.raises(SystemExit, match=r'--to comfyui: got .*b\.ckpt.*; expected a file ending in \.safetensors'):
        run_convert(tmp_path / 'a.ckpt', tmp_path / 'b.ckpt', '--to', 'comfyui')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--to', 'eqzoo', '--metrics', 'a.json'), '--to eqzoo: --metrics: for the model card of --to diffusers'),
        (('--to', 'onnx', '--license', 'mit', '--data', 'x'), '--data, --license: for the model card'),
        (('--to', 'ldm', '--latents', 'sd'), '--latents sd: for --to comfyui'),
        (('--to', 'onnx', '--dtype', 'bf16'), '--dtype bf16: expected fp32'),
        (('--to', 'diffusers', '--metrics', 'nowhere'), 'nowhere does not exist; expected a metrics.json'),
        (('--to', 'diffusers', '--push', 'name'), "--push: got 'name'; expected ORGANISATION/NAME"),
        (('--to', 'diffusers', '--push', 'a/b'), '--push: no token .*HF_TOKEN, or that of hf auth login'),
    ],
)
def test_options_that_do_not_fit(options, message, source, tmp_path, monkeypatch):
    for name in ('HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN', 'HF_HUB_OFFLINE'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, 'HF_TOKEN_PATH', str(tmp_path / 'no_token'))
    with pytest.raises(SystemExit, match=message):
        run_convert(source, tmp_path / 'out', *options)
    assert not (tmp_path / 'out').exists()


def header_of(card):
    return yaml.safe_load(card.split('---\n')[1])


def test_the_card_of_a_training_run(tmp_path):
    """What the checkpoint knows is on the card; what is of this machine is not."""
    folder = tmp_path / 'run'
    train('configs/eqvae/sd16_rot_scale.py', overrides=[f'work_dir={folder}'], smoke=True)
    checkpoint = max(folder.glob('iter_*.pth'))
    run_convert(checkpoint, tmp_path / 'my-vae', '--to', 'diffusers', '--license', 'mit')
    card = (tmp_path / 'my-vae/README.md').read_text()
    assert header_of(card) == dict(library_name='diffusers', tags=['eqzoo', 'autoencoder', 'vae'], license='mit')
    assert card.splitlines()[card.splitlines().index('# my-vae') + 4] == '```python'
    assert "type='ImplicitEquivariance'" in card
    assert '- **Base:** random weights\n- **Data:** Shapes' in card
    assert f'{checkpoint.stem.removeprefix("iter_")} steps of ' in card
    assert '- **Licence:** mit' in card
    assert str(tmp_path) not in card.replace(f"'{tmp_path}/my-vae'", '')  # but for the line that opens it
    namespace = {}
    exec(card.split('```python\n')[1].split('```')[0], namespace)
    assert isinstance(namespace['autoencoder'], AutoencoderKL)
    # measuring the latents writes the folder anew, and keeps the card
    write_normalization(tmp_path / 'my-vae', torch.zeros(16), torch.full((16,), 0.5))
    assert (tmp_path / 'my-vae/README.md').read_text() == card
    assert load_autoencoder(tmp_path / 'my-vae').normalization.scale.tolist() == [0.5] * 16


def test_the_card_has_what_is_given(source, tmp_path):
    result = dict(
        metrics={'psnr': 31.23456, 'ssim': None},
        card=dict(
            config='/home/me/a.py',
            weights='/home/me/a.pth',
            data=dict(type='ImageFolder', root='/home/me/images.zip'),
            num_images=50,
            evaluators=dict(ReconstructionMetric=dict(metrics=['psnr', 'ssim'], protocol='uint8')),
        ),
    )
    (tmp_path / 'metrics.json').write_text(json.dumps(result))
    given = ['--metrics', tmp_path / 'metrics.json', '--base', 'eqzoo://sd-vae-ft-mse', '--data', 'my photographs']
    run_convert(source, tmp_path / 'out', '--to', 'diffusers', *given)
    card = (tmp_path / 'out/README.md').read_text()
    assert header_of(card)['base_model'] == 'stabilityai/sd-vae-ft-mse'
    assert 'license' not in header_of(card)
    assert '**Base:** [sd-vae-ft-mse](https://huggingface.co/stabilityai/sd-vae-ft-mse/' in card
    assert ', MIT\n- **Data:** my photographs\n- **Licence:** not stated; that of the base holds' in card
    assert '| psnr | 31.23 |\n| ssim | not a number |' in card
    protocol = json.loads(card.split('```json\n')[1].split('```')[0])
    assert protocol == dict(
        data=dict(type='ImageFolder', root='images.zip'), num_images=50, evaluators=result['card']['evaluators']
    )


def test_a_folder_arrives_at_the_hub(hub, source, tmp_path, capsys):
    server = hub()
    run_convert(source, tmp_path / 'out', '--to', 'diffusers', '--push', 'me/my-vae', '--license', 'mit')
    written = {file.name: file.read_bytes() for file in (tmp_path / 'out').iterdir()}
    assert server.repositories == {'me/my-vae': written}
    assert set(written) == {'README.md', 'config.json', 'diffusion_pytorch_model.safetensors', 'eqzoo.safetensors'}
    assert b"AutoencoderTiny.from_pretrained('me/my-vae')" in written['README.md']
    assert server.authorizations == {f'Bearer {TOKEN}'}
    printed = capsys.readouterr()
    assert f'uploaded       {server.url}/me/my-vae\n' in printed.out
    assert TOKEN not in printed.out + printed.err
    arrived = tmp_path / 'arrived'
    arrived.mkdir()
    for name, content in server.repositories['me/my-vae'].items():
        (arrived / name).write_bytes(content)
    assert isinstance(AutoencoderTiny.from_pretrained(arrived), AutoencoderTiny)


def test_a_file_arrives_beside_others(hub, source, tmp_path):
    server = hub()
    server.repositories['me/my-vae'] = {'other.txt': b'1'}
    run_convert(source, tmp_path / 'vae.safetensors', '--to', 'ldm', '--push', 'me/my-vae')
    written = (tmp_path / 'vae.safetensors').read_bytes()
    assert server.repositories == {'me/my-vae': {'other.txt': b'1', 'vae.safetensors': written}}


@pytest.mark.parametrize(
    ('status', 'message'), [(403, r'refuses to write to me/x \(status 403\)'), (404, 'status 404')]
)
def test_a_refused_upload_keeps_the_result_and_the_secret(status, message, hub, source, tmp_path, capsys):
    hub(status=status)
    with pytest.raises(SystemExit, match=message) as end:
        run_convert(source, tmp_path / 'out', '--to', 'diffusers', '--push', 'me/x')
    assert f'hf upload me/x {tmp_path}/out' in str(end.value)
    assert TOKEN not in str(end.value) + capsys.readouterr().err
    assert (tmp_path / 'out/config.json').is_file()
