"""No traceback from any user input: every command with files of every kind, and every key of configs with wrong values.

Each input ends in a result or in one message. `-m slow -s` prints the figures of the whole fuzz.
"""

import contextlib
import io
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from eqzoo.autoencoders import KLAutoencoder
from eqzoo.commands import cli
from eqzoo.config import load_config

WRONG = ['0', '-1', '2.5', 'a', '"1e-4"', 'none', '[]', '{}', '[5]', 'true', '1e400', '99999999999999999999']
AUTOENCODER, GENERATOR, STUDY = (
    'configs/demo/pretrain.py',
    'configs/dit/dit_tiny_shapes.py',
    'configs/studies/p_shapes.py',
)
# files of every kind: runs, a study, bases, parts of released models, and what is no config
FILES = [
    AUTOENCODER,
    'configs/eqvae/sd_rot_scale.py',
    GENERATOR,
    'configs/maskgit/maskgit_tiny_shapes.py',
    STUDY,
    'configs/_base_/runtime.py',
    'configs/_base_/autoencoders/sd_vae.py',
    'configs/_base_/losses/ldm.py',
    'configs/zoo/evaluation/fid_inception.py',
    'configs/dit/metafile.yml',
    'README.md',
    'docs',
    'nowhere.py',
    '/dev/null',
]


def outcome(words: list[str]) -> str:
    """Run a command; return 'result', 'message', 'usage', or the traceback."""
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            cli.main(words)
    except SystemExit as end:
        if isinstance(end.code, str):
            return 'message' if len(end.code) > len('error: ') else f'an empty message: {end.code}'
        return 'result' if not end.code else 'usage'
    except BaseException:
        return traceback.format_exc()
    return 'result'


def report(inputs: Iterator[list[str]]) -> Counter:
    counts: Counter = Counter()
    tracebacks = []
    for words in inputs:
        found = outcome(words)
        counts[found if found in ('result', 'message', 'usage') else 'traceback'] += 1
        if counts['traceback'] > len(tracebacks):
            tracebacks.append(f'{" ".join(words)}\n{found}')
    print(f'\n{sum(counts.values())} inputs: {dict(counts)}')
    assert not tracebacks, '\n\n'.join(tracebacks)
    return counts


@pytest.fixture
def checkpoints(tmp_path):
    """Checkpoints at hand: a good one, one of another network, a truncated one, text, an empty file, a folder."""
    torch.manual_seed(0)
    good, other, cut = (str(tmp_path / name) for name in ('good.pth', 'other.pth', 'cut.pth'))
    torch.save(KLAutoencoder(4, (16, 32), norm_num_groups=8).state_dict(), good)
    torch.save(torch.nn.Linear(2, 2).state_dict(), other)
    Path(cut).write_bytes(Path(good).read_bytes()[:1000])
    (tmp_path / 'empty.pth').touch()
    return [good, other, cut, str(tmp_path / 'empty.pth'), 'README.md', str(tmp_path), 'nowhere.pth', 'a,b', '']


def commands(file: str, checkpoint: str, folder: Path) -> Iterator[list[str]]:
    """Every command with a file where its config, and where its images or results are expected."""
    work = f'work_dir={folder}/run'
    yield ['train', file, '--dry-run', work]
    yield ['train', file, '--show']
    yield ['train', file, '--dry-run', '--resume', work]
    yield ['test', file, checkpoint, work, 'nothing.here=1']
    yield ['sample', file, checkpoint, '--out', f'{folder}/samples', '--num', '1', work]
    yield ['cache-latents', file, checkpoint, '--out', f'{folder}/latents', 'nothing.here=1']
    yield ['cache-latents', file, checkpoint, '--out', f'{folder}/none', '--verify']
    yield ['latent-stats', file, checkpoint, '--num-images', '2', '--measure-only', 'nothing.here=1']
    yield ['study', file, '--dry-run']
    yield ['configs', file, '--show']
    yield ['convert', checkpoint or file, f'{folder}/out.pth', '--to', 'eqzoo', '--config', file, '--overwrite']
    yield ['score', file, file, '--out', f'{folder}/score', '--extractor', 'EfficientNetLite0']
    yield ['compare', file, '--out', f'{folder}/comparison']
    yield ['laboratory', checkpoint or file, file, '--out', f'{folder}/laboratory']
    yield ['download', file]
    if not file.endswith('shapes.py'):  # those measure four thousand pictures
        yield ['reference', file, f'{folder}/reference.npz', '--extractor', 'EfficientNetLite0', '--overwrite']


def keys(config: str) -> list[str]:
    """Return every key of a config, of components too, as a command line names it."""
    found = []

    def walk(value, place):
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            found.append(f'{place}{key}')
            walk(item, f'{place}{key}.')

    walk(load_config(config).to_dict(), '')
    return [key for key in found if not key.startswith(('custom_imports', 'device'))]


def wrong_values(config: str, words: list[str]) -> Iterator[list[str]]:
    for key in keys(config):
        for value in WRONG:
            yield [*words[:1], config, *words[1:], f'{key}={value}']


def test_files_of_every_kind(tmp_path, checkpoints):
    inputs = [each for file in FILES[::3] for each in commands(file, checkpoints[4], tmp_path)]
    counts = report(inputs)
    assert counts['message'] > len(inputs) / 2


def test_checkpoints_of_every_kind(tmp_path, checkpoints):
    inputs = [
        words
        for checkpoint in checkpoints[1:]
        for words in (
            ['test', AUTOENCODER, checkpoint, f'work_dir={tmp_path}/run'],
            ['sample', GENERATOR, checkpoint, '--out', f'{tmp_path}/samples', f'work_dir={tmp_path}/run'],
            ['cache-latents', GENERATOR, checkpoint, '--out', f'{tmp_path}/latents'],
            ['latent-stats', AUTOENCODER, checkpoint],
            ['convert', checkpoint, f'{tmp_path}/out', '--to', 'diffusers'],
        )
    ]
    assert report(inputs)['result'] == 0


def test_wrong_values_of_some_keys(tmp_path):
    chosen = [
        words
        for config in (AUTOENCODER, GENERATOR)
        for words in list(wrong_values(config, ['train', '--dry-run', '--smoke', f'work_dir={tmp_path}/run']))[::41]
    ]
    counts = report(chosen)
    assert counts['message'] > len(chosen) / 2


def test_wrong_options(tmp_path):
    out = ['--out', str(tmp_path / 'out')]
    options = {
        'sample': [GENERATOR, *out, '--num'],
        'test': [AUTOENCODER, '--images'],
        'cache-latents': [GENERATOR, *out, '--shard-images'],
        'latent-stats': [AUTOENCODER, 'nowhere.pth', '--num-images'],
        'score': ['docs', 'docs', *out, '--batch-size'],
        'reference': ['docs', str(tmp_path / 'a.npz'), '--size'],
        'study': [STUDY, '--dry-run', '--seeds'],
        'laboratory': ['nowhere.pth', 'docs', *out, '--limit'],
        'demo': ['--steps'],
        'convert': ['nowhere.pth', str(tmp_path / 'a.pth'), '--to', 'eqzoo', '--scale'],
    }
    inputs = [[command, *words, value] for command, words in options.items() for value in ('0', '-1', 'a', 'nan')]
    counts = report(inputs)
    assert counts['result'] == 0
    assert counts['message'] >= 2 * len(options)


@pytest.mark.slow
def test_all_files_with_all_checkpoints(tmp_path, checkpoints):
    bases = sorted(str(path) for path in Path('configs').rglob('*.py'))
    report(
        words
        for file in [*FILES, *bases]
        for words in commands(file, checkpoints[len(file) % len(checkpoints)], tmp_path)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    'config',
    [AUTOENCODER, GENERATOR, 'configs/eqvae/sd_rot_scale.py', 'configs/maskgit/maskgit_tiny_shapes.py'],
)
def test_wrong_values_of_all_keys(config, tmp_path):
    report(wrong_values(config, ['train', '--dry-run', '--smoke', f'work_dir={tmp_path}/run']))
