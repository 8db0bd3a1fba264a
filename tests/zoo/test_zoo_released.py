"""The table of released files, and the commands that fetch them."""

import hashlib
import os
import re
import subprocess
from pathlib import Path

import pytest

from eqzoo.zoo import RELEASED, ReleasedFile, fetch_command
from eqzoo.zoo import released as released_module

BY_PATH = {each.path: each for each in RELEASED}


def test_table_is_well_formed():
    assert len(BY_PATH) == len(RELEASED)
    for each in RELEASED:
        assert each.path.startswith('weights/')
        assert re.fullmatch(r'https://[\w./-]+', each.url)
        assert each.sha256 is None or re.fullmatch('[0-9a-f]{64}', each.sha256)
        suffix = re.search(r'-([0-9a-f]{8})\.pth', each.path)  # torch names its files by their hash
        assert suffix is None or each.sha256.startswith(suffix[1])


# A file of float32 weights is its numbers plus a header of some kilobytes.
@pytest.mark.parametrize(
    ('path', 'num_bytes'),
    [
        ('weights/sd-vae-ft-mse/diffusion_pytorch_model.safetensors', 4 * 83_653_863),
        ('weights/sdxl-vae/sdxl_vae.safetensors', 4 * 83_653_863),
        ('weights/sd3-vae/diffusion_pytorch_model.safetensors', 2 * 83_819_683),
        ('weights/vgg16-397923af.pth', 4 * 138_357_544),
        ('weights/alexnet-owt-7be5be79.pth', 4 * 61_100_840),
    ],
)
def test_sizes_agree_with_parameter_counts(path, num_bytes):
    assert 0 < BY_PATH[path].size - num_bytes < 40_000


def test_archives_are_unpacked_where_the_config_looks():
    assert fetch_command('weights/kl-f8/model.ckpt') == (
        'curl -fL --create-dirs -o weights/kl-f8.zip https://ommer-lab.com/files/latent-diffusion/kl-f8.zip'
        ' && unzip -o weights/kl-f8.zip -d weights/kl-f8'
    )


def test_unknown_paths_have_no_command():
    assert fetch_command('weights/mine.pth') is None
    assert fetch_command(Path('weights') / 'kl-f8' / 'model.ckpt') is not None


def test_gated_files_ask_for_a_token(tmp_path):
    command = fetch_command('weights/sd3-vae/diffusion_pytorch_model.safetensors')
    environment = {'PATH': os.environ['PATH']}
    result = subprocess.run(['sh', '-c', command], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode != 0
    page = 'https://huggingface.co/stabilityai/stable-diffusion-3-medium-diffusers'
    assert f'accept the licence at {page} and set HF_TOKEN' in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('is_whole', [True, False])
def test_command_moves_only_a_file_with_the_right_hash_into_place(tmp_path, monkeypatch, is_whole):
    """Run the command itself, with a `curl` that copies a local file."""
    content = b'weights'
    entry = ReleasedFile('weights/a/b.pth', 'https://host/b.pth', sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(released_module, 'RELEASED', (entry,))
    curl = tmp_path / 'bin' / 'curl'
    curl.parent.mkdir()
    sent = 'weights' if is_whole else 'weigh'
    # Arguments: -fL --create-dirs -o PART URL
    curl.write_text(f'#!/bin/sh\ntest "$5" = https://host/b.pth || exit 1\nmkdir -p weights/a\nprintf {sent} > "$4"\n')
    curl.chmod(0o755)
    environment = {'PATH': f'{curl.parent}{os.pathsep}{os.environ["PATH"]}'}
    command = fetch_command('weights/a/b.pth')
    result = subprocess.run(['sh', '-c', command], cwd=tmp_path, env=environment, capture_output=True)
    assert (result.returncode == 0) is is_whole
    assert (tmp_path / 'weights/a/b.pth').exists() is is_whole
