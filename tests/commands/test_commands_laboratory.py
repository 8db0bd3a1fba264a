"""`tools/laboratory.py` as a user types it."""

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image

from eqzoo.autoencoders import KLAutoencoder, TinyAutoencoder, VQAutoencoder
from eqzoo.commands.cli import run
from eqzoo.commands.laboratory import laboratory


@pytest.fixture
def save(tmp_path):
    """A function (name, class, arguments) → the path of a checkpoint."""

    def function(name, kind, **arguments):
        path = tmp_path / f'{name}.pth'
        config = dict(type=kind.__name__, **arguments)
        torch.save(dict(state_dict=kind(**arguments).state_dict(), autoencoder=config), path)
        return str(path)

    return function


@pytest.fixture
def tiny(save):
    return save('tiny', TinyAutoencoder, num_blocks=(1, 1, 1), width=8)


@pytest.fixture
def photographs(tmp_path):
    """A folder of two images."""
    folder = tmp_path / 'photographs'
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for name, (width, height) in (('a', (50, 38)), ('b', (38, 38))):
        pixels = torch.randint(256, (height, width, 3), generator=generator).byte().numpy()
        Image.fromarray(pixels).save(folder / f'{name}.png')
    return str(folder)


def run_laboratory(tmp_path, *words):
    return run(laboratory, [*words, '--out', str(tmp_path / 'out'), '--device', 'cpu'])


def shell(*words):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120)


def test_a_page_and_numbers(tiny, photographs, tmp_path, capsys):
    run_laboratory(tmp_path, tiny, photographs)
    assert {path.name for path in (tmp_path / 'out').glob('[!.]*')} == {'index.html', 'laboratory.json'}
    summary = json.loads((tmp_path / 'out' / 'laboratory.json').read_text())
    assert list(summary['models']) == ['tiny']
    assert summary['size'] == 36
    assert [image['cut'] for image in summary['images']] == ['middle 36 x 36'] * 2
    # 9 cells a side
    assert summary['curves'][2]['series'][0]['x'] == pytest.approx([2 / 9, 4 / 9, 7 / 9, 1])
    out = capsys.readouterr().out
    assert f'psnr ↑                    {summary["models"]["tiny"]["metrics"]["psnr"]:.4f}' in out
    assert 'Cut at the centre from 38 to 36 pixels a side: these models need multiples of 4.' in out
    assert out.endswith(f'Written: {tmp_path}/out/index.html and {tmp_path}/out/laboratory.json\n')


def test_a_model_of_ones_own_class(own, photographs, tmp_path):
    words = own.file, photographs, '--size', '16', '--limit', '1', '--angles', '90', '--scales', '0.5'
    with pytest.raises(SystemExit, match=r"says that it needs 'OwnAutoencoder'"):
        run_laboratory(tmp_path, *words)
    summary = run_laboratory(tmp_path, *words, '--config', own.config)
    assert summary['models']['own']['latent_size'] == [4, 4, 4]


def test_models_of_all_kinds_side_by_side(save, tiny, photographs, tmp_path):
    small = dict(layers_per_block=1, norm_num_groups=4)
    kl = save('kl', KLAutoencoder, latent_channels=4, block_out_channels=(8, 8, 8), **small)
    codes = dict(latent_channels=8, num_codes=16, attention_levels=())
    vq = save('vq', VQAutoencoder, block_out_channels=(8, 8), **codes, **small)
    files = [f'{photographs}/{name}.png' for name in 'ab']
    words = [kl, tiny, vq, *files, '--names', 'KL, tiny,VQ', '--size', '32', '--angles', '90', '--scales', '0.5']
    summary = run_laboratory(tmp_path, *words)
    assert {name: each['latent_size'] for name, each in summary['models'].items()} == {
        'KL': [4, 8, 8],
        'tiny': [4, 8, 8],
        'VQ': [8, 16, 16],
    }
    # as many channels, but not of one start: random weights
    assert [each['colours']['aligned_to'] for each in summary['models'].values()] == [None, 'KL', 'KL']
    assert [image['name'] for image in summary['images']] == ['a.png', 'b.png']


def test_the_same_command_gives_the_same_bytes(tiny, photographs, tmp_path):
    pages = []
    for _ in range(2):
        run_laboratory(tmp_path, tiny, photographs, '--limit', '1', '--shown', '1')
        pages.append((tmp_path / 'out' / 'index.html').read_bytes())
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['{tiny}'], 'laboratory: got only .*tiny.pth; give one or more models, then images'),
        (['{images}/a.png'], 'laboratory: got only'),
        (['{tiny}', '/nowhere'], '/nowhere: no such folder or zip of images'),
        (['{tiny}', 'nowhere.png'], "there is no file 'nowhere.png'"),
        (['{tiny}', '{tiny}'], 'no images in this zip'),
        (['{images}', 'clothes-f8'], 'images come last: MODEL .MODEL ....'),
        (['{tiny}', '{images}', '{images}'], 'is a folder of images; only the last word can be one'),
        (['taef', '{images}'], "Unknown model 'taef'. Did you mean 'taef"),
        (['/nowhere/a.pth', '{images}'], "no file '/nowhere/a.pth'"),
        (['{tiny}', '{images}', '--names', 'a,b'], "--names: got 'a', 'b' for 1 models"),
        (['{tiny}', '{tiny}', '{images}', '--names', 'a,a'], "--names: got 'a', 'a' for 2 models"),
        (['{tiny}', '{images}', '--angles', '5;6'], "--angles: got '5;6'"),
        (['{tiny}', '{images}', '--scales', '1.5'], r'eval_scales\[0\] must be'),
        (['{tiny}', '{images}', '--limit', '0'], '--limit must be at least 1, got 0'),
        (['{tiny}', '{images}', '--size', '3'], '--size is 3; give more'),
        (['{tiny}', '{images}', '--device', 'gpu'], "device: got 'gpu'"),
    ],
)
def test_a_mistake_is_one_message(tiny, photographs, tmp_path, words, message):
    words = [word.format(tiny=tiny, images=photographs) for word in words]
    with pytest.raises(SystemExit, match=f'^error: .*{message}'):
        run(laboratory, [*words, '--out', str(tmp_path / 'out'), *([] if '--device' in words else ['--device', 'cpu'])])
    assert not (tmp_path / 'out').exists()


def test_what_is_not_downloaded_is_told(photographs, tmp_path, monkeypatch):
    monkeypatch.setenv('EQZOO_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    with pytest.raises(SystemExit, match='^error: download: .* is not in the cache, and HF_HUB_OFFLINE is set'):
        run_laboratory(tmp_path, 'sd-vae', photographs)


def test_a_folder_that_cannot_be_written_to_is_told_first(tiny, photographs, tmp_path, monkeypatch):
    (tmp_path / 'out').write_text('a file')
    monkeypatch.setattr('eqzoo.laboratory.examine', None)
    with pytest.raises(SystemExit, match='^error: .*File exists'):
        run_laboratory(tmp_path, tiny, photographs)


def test_help_as_a_shell_runs_it():  # of train, test and demo: test_commands_tools.py
    result = shell('tools/laboratory.py', '--help')
    assert (result.returncode, result.stderr) == (0, '')
    assert 'models_and_images' in result.stdout
