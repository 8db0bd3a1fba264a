"""A generator's way from latents to numbers: train, sample, measure; sampling goes on, in any pieces, to the same images."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eqzoo.commands.cli import run
from eqzoo.commands.sample import sample
from eqzoo.commands.test import test as evaluate
from eqzoo.commands.train import train
from eqzoo.config import load_config, to_python
from eqzoo.data.samples import NpzSamples
from eqzoo.engine import read_checkpoint

DIT = 'configs/dit/dit_tiny_shapes.py'


@pytest.fixture(scope='module')
def trained(tmp_path_factory, module_root):
    """The work directory of a smoke run."""
    folder = tmp_path_factory.mktemp('dit')
    train(DIT, overrides=[f'work_dir={folder}'], smoke=True)
    return folder


@pytest.fixture(scope='module')
def module_root(request):
    """The repository as working directory before fixtures of a module run."""
    before = Path.cwd()
    os.chdir(request.config.rootpath)
    yield request.config.rootpath
    os.chdir(before)


def draw(folder, out, *words, checkpoint=None):
    given = [DIT] if checkpoint is None else [DIT, str(checkpoint)]
    return run(sample, [*given, '--smoke', '--out', str(out), f'work_dir={folder}', *words])


def pixels(file):
    return np.load(file)['arr_0'].astype(int)


def test_checkpoints_hold_generator_average_and_whose_latents(trained):
    checkpoint = read_checkpoint(trained / 'iter_4.pth')
    assert checkpoint['generator']['type'] == 'DiT'
    assert checkpoint['generator']['network']['size'] == [2, 32, 2]
    assert len(checkpoint['latents']['autoencoder']) == 64
    names = {name.removeprefix('generator.') for name in checkpoint['state_dict']}
    assert names == set(checkpoint['ema_state_dict'])
    assert not torch.equal(
        checkpoint['ema_state_dict']['network.final_layer.linear.bias'],
        checkpoint['state_dict']['generator.network.final_layer.linear.bias'],
    )
    assert {path.name for path in (trained / 'pictures').iterdir()} == {'0000002.png', '0000004.png'}


def test_samples_go_on_where_they_stopped_and_more_can_be_added(trained, tmp_path, capsys):
    draw(trained, tmp_path / 'whole.npz', '--num', '11')
    assert 'Written: ' in capsys.readouterr().out
    draw(trained, tmp_path / 'parts.npz', '--num', '3', 'sampling.batch_size=2')
    draw(trained, tmp_path / 'parts.npz', '--num', '11', 'sampling.batch_size=5')
    assert '8 images drawn' in capsys.readouterr().out
    assert np.abs(pixels(tmp_path / 'whole.npz') - pixels(tmp_path / 'parts.npz')).max() <= 1  # rounding
    assert np.load(tmp_path / 'parts.npz')['arr_1'].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    draw(trained, tmp_path / 'parts.npz', '--num', '4')
    out = capsys.readouterr().out
    assert 'drawn' not in out
    assert '11 samples of 10 classes' in out
    assert sorted(path.name for path in tmp_path.glob('parts*')) == [
        'parts.json',
        'parts.npz',
        'parts_grid.png',
    ]
    plan = json.loads((tmp_path / 'parts.json').read_text())['plan']
    assert plan['sampler'] == dict(type='DDPM', steps=2, guidance=dict(type='ClassifierFree', scale=1.5))


def test_samples_go_to_the_current_folder_too(trained, tmp_path, monkeypatch):
    (tmp_path / 'mine.py').write_text(to_python(load_config(DIT)))
    weights = str(trained / 'iter_4.pth')
    (tmp_path / 'samples').mkdir()
    monkeypatch.chdir(tmp_path / 'samples')
    monkeypatch.setattr('eqzoo.engine.smoke.smoke_path', lambda path: path)
    run(sample, [str(tmp_path / 'mine.py'), weights, '--smoke', f'work_dir={trained}', '--out', '.', '--num', '2'])
    assert sorted(path.name for path in Path().iterdir()) == ['000000.png', '000001.png']
    assert {path.name for path in tmp_path.glob('samples*')} == {'samples', 'samples.json', 'samples_grid.png'}


def test_a_folder_has_the_same_images(trained, tmp_path):
    draw(trained, tmp_path / 'a.npz', '--num', '3')
    draw(trained, tmp_path / 'a', '--num', '3')
    images = np.stack([np.asarray(Image.open(path)) for path in sorted((tmp_path / 'a').iterdir())]).astype(int)
    assert np.abs(images - pixels(tmp_path / 'a.npz')).max() <= 1


def test_the_average_is_sampled_not_the_last_weights(trained, tmp_path):
    checkpoint = read_checkpoint(trained / 'iter_4.pth')
    checkpoint['state_dict'] = {name: torch.zeros_like(each) for name, each in checkpoint['state_dict'].items()}
    torch.save(checkpoint, tmp_path / 'zeros.pth')
    for name, checkpoint in (('a', None), ('b', tmp_path / 'zeros.pth')):
        draw(trained, tmp_path / f'{name}.npz', '--num', '2', checkpoint=checkpoint)
    assert np.abs(pixels(tmp_path / 'a.npz') - pixels(tmp_path / 'b.npz')).max() <= 1


def test_other_samples_and_other_latents_are_refused(trained, tmp_path):
    draw(trained, tmp_path / 'a.npz', '--num', '2')
    with pytest.raises(SystemExit, match=r'a.npz: has other samples: seed 0 there, 1 asked; choose another --out'):
        draw(trained, tmp_path / 'a.npz', '--num', '2', 'sampling.seed=1')
    checkpoint = read_checkpoint(trained / 'iter_4.pth')
    checkpoint['latents']['autoencoder'] = 'f' * 64
    torch.save(checkpoint, tmp_path / 'other.pth')
    with pytest.raises(SystemExit, match='other.pth: .* autoencoder ffffffffffff…'):
        draw(trained, tmp_path / 'b.npz', checkpoint=tmp_path / 'other.pth')
    checkpoint['latents'] = {**read_checkpoint(trained / 'iter_4.pth')['latents'], 'scale': [9.0] * 4}
    torch.save(checkpoint, tmp_path / 'scaled.pth')
    with pytest.raises(SystemExit, match=r'its latents were normalised with scale \[9.0, 9.0, 9.0, 9.0\]'):
        draw(trained, tmp_path / 'b.npz', checkpoint=tmp_path / 'scaled.pth')
    with pytest.raises(SystemExit, match=r'sampling.labels: got \[10\]'):
        draw(trained, tmp_path / 'b.npz', '--labels', '1,10')
    assert not (tmp_path / 'b.npz').exists()


def test_samples_of_another_decoder_are_other_samples(trained, tmp_path):
    checkpoint = read_checkpoint(trained / 'iter_4.pth')
    del checkpoint['latents']  # as in published files
    torch.save(checkpoint, tmp_path / 'published.pth')
    draw(trained, tmp_path / 'a.npz', '--num', '2', checkpoint=tmp_path / 'published.pth')
    with pytest.raises(SystemExit, match=r"a.npz: has other samples: decoder .*'scale': \[3.0, "):
        draw(trained, tmp_path / 'a.npz', 'model.autoencoder.scale=3.0', checkpoint=tmp_path / 'published.pth')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            dict(process=dict(num_steps=500)),
            'process.num_steps 500, the config has 1000; set model.generator.process.n',
        ),
        (dict(process=dict(schedule='cosine')), "process.schedule 'cosine', the config has 'linear'"),
        (dict(network=dict(size=[2, 32, 4])), r'network.size \[2, 32, 4\], the config has'),
    ],
)
def test_what_weights_do_not_show_must_be_as_in_training(trained, tmp_path, change, message):
    checkpoint = read_checkpoint(trained / 'iter_4.pth')
    for part, arguments in change.items():
        checkpoint['generator'][part] |= arguments
    torch.save(checkpoint, tmp_path / 'other.pth')
    with pytest.raises(SystemExit, match=f'other.pth: the generator was trained with {message}'):
        draw(trained, tmp_path / 'a.npz', checkpoint=tmp_path / 'other.pth')


def test_a_gap_of_a_stopped_run_ends_the_file(trained, tmp_path):
    draw(trained, tmp_path / 'a.npz', '--num', '2')
    draw(trained, tmp_path / 'b.npz', '--num', '1')
    (tmp_path / 'b.json').write_bytes((tmp_path / 'a.json').read_bytes())
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    NpzSamples(tmp_path / 'b.npz').write([7], images)  # of another process, which was ahead
    draw(trained, tmp_path / 'b.npz', '--num', '2')
    assert np.abs(pixels(tmp_path / 'a.npz') - pixels(tmp_path / 'b.npz')).max() <= 1


def test_what_training_alone_needs_is_not_asked_for(trained, tmp_path):
    leaf = 'configs/repa/repa_xl2_sd_eq.py'
    with pytest.raises(SystemExit) as said:
        run(sample, [leaf, 'no_such.pth', '--out', str(tmp_path / 'a.npz')])
    assert 'looked for: no_such.pth' in str(said.value)
    assert 'DINOv2' not in str(said.value)
    assert 'LatentStore' not in str(said.value)


def test_classes_can_be_chosen(trained, tmp_path):
    draw(trained, tmp_path / 'a.npz', '--num', '3', '--labels', '4,2')
    assert np.load(tmp_path / 'a.npz')['arr_1'].tolist() == [4, 2, 4]


def test_mistakes_are_one_message(trained, tmp_path):
    with pytest.raises(SystemExit, match=r'configs/demo/plain.py: describes no samples; .*model.generator'):
        run(sample, ['configs/demo/plain.py', '--out', str(tmp_path / 'a.npz')])
    with pytest.raises(SystemExit, match=r'Nothing to sample from: .* has no checkpoint .*Train first'):
        run(sample, [DIT, '--out', str(tmp_path / 'a.npz'), f'work_dir={tmp_path}'])
    network = ["model.generator.network.adapt=('classes',)", 'model.generator.network.weights=published.pt']
    with pytest.raises(SystemExit, match=r'Nothing to sample from: .* adapts the weights of another network'):
        run(sample, [DIT, '--out', str(tmp_path / 'a.npz'), f'work_dir={tmp_path}', *network])
    with pytest.raises(SystemExit, match='no_such.pth'):
        draw(trained, tmp_path / 'a.npz', checkpoint='no_such.pth')
    with pytest.raises(SystemExit, match='--samples: configs/demo/plain.py .* autoencoder'):
        run(evaluate, ['configs/demo/plain.py', '--samples', str(tmp_path / 'a')])


def test_two_processes_draw_the_same_samples(trained, tmp_path, root):
    draw(trained, tmp_path / 'one.npz')
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', 'tools/sample.py']
    words = [DIT, '--smoke', f'work_dir={trained}', '--out', str(tmp_path / 'two.npz')]
    done = subprocess.run([*command, *words], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r'Written: .*two.npz, 8 samples of 8 classes', done.stdout)
    assert np.abs(pixels(tmp_path / 'one.npz') - pixels(tmp_path / 'two.npz')).max() <= 1


def test_a_test_draws_and_measures_and_writes_images_only_if_asked(trained, tmp_path):
    result = run(evaluate, [DIT, '--smoke', f'work_dir={trained}'])
    metrics = result['metrics']
    assert next(iter(metrics)) == 'fd_effnet_lite0'
    assert not [name for name in metrics if 'fid' in name]
    assert result['card']['data']['kind'] == 'samples'
    assert result['card']['num_images'] == 8
    assert result['card']['evaluators']['GenerationMetric']['labels'].startswith('balanced')
    assert result['card']['weights']['file'].endswith('iter_4.pth')
    assert {path.suffix for path in trained.iterdir()} & {'.npz'} == {'.npz'}  # the reference alone
    assert not list(trained.glob('*.parts'))
    files = ['--samples', str(tmp_path / 'samples.npz')]
    again = run(evaluate, [DIT, '--smoke', f'work_dir={trained}', *files])
    assert again['metrics'] == pytest.approx(metrics, rel=1e-6)
    assert len(pixels(tmp_path / 'samples.npz')) == 8
    read = run(evaluate, [DIT, '--smoke', f'work_dir={trained}', *files])  # none is drawn
    assert read['metrics'] == pytest.approx(metrics, rel=1e-6)
    assert 'Samples' in (trained / 'report.html').read_text()


def test_samples_are_measured_without_the_decoder(trained, tmp_path):
    """Against reconstructions, and before decoding: latents that are drawn again for images in files are the same."""
    shapes, extractor = dict(type='Shapes', num_images=16, size=64), dict(type='EfficientNetLite0', size=32)
    sides = dict(extractor=extractor, reference=shapes, metrics=('fd',))
    evaluators = [
        dict(type='GenerationMetric', **sides),
        dict(type='GenerationMetric', **sides, against='reconstructions'),
        dict(type='GenerationLatentFrechet', reference=shapes),
    ]
    words = [DIT, '--smoke', f'work_dir={trained}', f'test_evaluators={evaluators!r}']
    result = run(evaluate, words)
    keys = ['fd_effnet_lite0_32px', 'fd_effnet_lite0_32px/reconstructions', 'latent_fd', 'latent_fd/cells']
    assert [*result['metrics']] == keys
    assert all(value > 0.01 for value in result['metrics'].values())
    assert result['metrics'][keys[0]] != result['metrics'][keys[1]]
    cards = result['card']['evaluators']
    checkpoint = read_checkpoint(trained / 'iter_4.pth')
    assert cards['GenerationMetric#2']['autoencoder'] == checkpoint['latents']['autoencoder']
    assert cards['GenerationLatentFrechet']['autoencoder'] == checkpoint['latents']
    assert json.loads((trained / 'metrics.json').read_text())['metrics'] == result['metrics']
    draw(trained, tmp_path / 'some.npz', '--num', '3')
    mixed = run(evaluate, [*words, '--samples', str(tmp_path / 'some.npz')])
    assert mixed['metrics'] == pytest.approx(result['metrics'], rel=1e-5)
    config = {**load_config(DIT), 'evaluators': evaluators[:1]}
    del config['test_evaluators']  # those of validation are used then
    (tmp_path / 'mine.py').write_text(to_python(config))
    of_validation = run(evaluate, [str(tmp_path / 'mine.py'), *words[1:-1]])['metrics']
    assert of_validation[keys[0]] == result['metrics'][keys[0]]


def test_a_smoke_run_fits_the_worse_network_of_autoguidance_too(trained, tmp_path):
    worse = dict(type='DiffusionTransformer', size=(2, 32, 2), latent_size=32, num_classes=1000)
    guidance = dict(type='AutoGuidance', scale=2.0, network=worse)
    draw(trained, tmp_path / 'a.npz', '--num', '2', f'sampling.sampler.guidance={guidance}')
    draw(trained, tmp_path / 'b.npz', '--num', '2', 'sampling.sampler.guidance=None')
    assert (pixels(tmp_path / 'a.npz') != pixels(tmp_path / 'b.npz')).any()


def test_a_dry_run_says_what_would_be_trained(tmp_path, capsys):
    train(DIT, overrides=[f'work_dir={tmp_path}'], smoke=True, dry_run=True)
    out = capsys.readouterr().out
    assert re.search(r'generator +DiT of latents 4 x 16 x 16 and 10 classes\n', out)
    assert re.search(r'network +DiffusionTransformer, [\d,]+ parameters, 0.0\d GMACs\n', out)
    assert re.search(r'data +LatentStore: 16 latents 4x16x16 of 10 classes', out)


MASKGIT = 'configs/halton/halton_tiny_shapes.py'


def test_a_box_of_images_is_drawn_anew(tmp_path):
    """From the command on: train, then fill; the card says how; another box is another set of samples."""
    for number in range(3):
        noise = np.random.default_rng(number).integers(256, size=(64, 64, 3), dtype=np.uint8)
        (tmp_path / 'photos').mkdir(exist_ok=True)
        Image.fromarray(noise).save(tmp_path / 'photos' / f'{number}.png')
    train(MASKGIT, overrides=[f'work_dir={tmp_path / "run"}'], smoke=True)
    words = [MASKGIT, '--smoke', f'work_dir={tmp_path / "run"}', '--out', str(tmp_path / 'filled.npz'), '--num', '3']
    inpaint = ['--inpaint', str(tmp_path / 'photos'), '--box']
    out = run(sample, [*words, *inpaint, '0.5,0,1,1'])
    filled, card = pixels(out), json.loads(next(Path(out).parent.glob('filled*.json')).read_text())
    assert filled.shape == (3, 64, 64, 3)
    assert card['plan']['inpaint'] == dict(root=str(tmp_path / 'photos'), box=[0.5, 0.0, 1.0, 1.0])
    with pytest.raises(SystemExit, match='inpaint'):
        run(sample, [*words, *inpaint, '0,0,1,1'])


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--inpaint', 'photos'], '--inpaint and --box: got one of them'),
        (['--box', '0,0,1,1'], '--inpaint and --box: got one of them'),
        (['--inpaint', 'photos', '--box', '0,0,1'], "--box: got '0,0,1'; expected TOP,LEFT,BOTTOM,RIGHT"),
    ],
)
def test_half_an_inpainting_is_refused(words, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        run(sample, [MASKGIT, '--out', str(tmp_path / 'a'), *words])


@pytest.mark.parametrize('labels', ['null', '²', '1,x', '-1'])
def test_labels_are_checked_before_weights_are_looked_for(labels, tmp_path):
    words = ['sampling.num_samples=4', f'work_dir={tmp_path}', '--out', str(tmp_path / 'a'), '--labels', labels]
    with pytest.raises(SystemExit, match=f'sampling.labels must be .*got .*{labels[0]}'):
        run(sample, [DIT, *words])
