"""`tools/score.py` and `tools/reference.py`: folders, zips and npz files against each other."""

import json
import re
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from eqzoo.commands.cli import run
from eqzoo.commands.reference import reference
from eqzoo.commands.score import score
from eqzoo.commands.train import train
from eqzoo.data import write_npz_images

OFFLINE = ['--extractor', 'EfficientNetLite0']


def pixels(count, seed, size=32):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(each).resize((size, size))) for each in coarse])


@pytest.fixture
def sets(tmp_path):
    """The same samples as a folder of two classes, a zip and an npz; and other images as a reference."""
    (tmp_path / 'work').mkdir()
    for name, values in (('samples', pixels(12, 0)), ('images', pixels(14, 1))):
        for index, value in enumerate(values):
            path = tmp_path / name / f'{index % 2}' / f'{index // 2:03d}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(value).save(path)
    with zipfile.ZipFile(tmp_path / 'samples.zip', 'w') as archive:
        for path in sorted((tmp_path / 'samples').rglob('*.png')):
            archive.write(path, path.relative_to(tmp_path / 'samples'))
    ordered = [*pixels(12, 0)[::2], *pixels(12, 0)[1::2]]  # as the folder's names are sorted
    batch = torch.from_numpy(np.stack(ordered)).permute(0, 3, 1, 2)
    write_npz_images(tmp_path / 'samples.npz', [batch], 12, labels=[0] * 6 + [1] * 6)
    return tmp_path


def test_folder_zip_and_npz_have_the_same_numbers(sets, capsys):
    run(reference, [str(sets / 'images'), str(sets / 'ref.npz'), *OFFLINE, '--size', '32'])
    assert 'statistics of 14 images on effnet_lite0; 14 images are kept in it.' in capsys.readouterr().out
    results = []
    for kind in ('samples', 'samples.zip', 'samples.npz'):
        words = ['--metrics', 'fd,pr,swd', '--min-images', '2', '--out', str(sets / 'work' / kind)]
        results.append(run(score, [str(sets / kind), str(sets / 'ref.npz'), *OFFLINE, *words]))
    first = results[0]
    assert next(iter(first['metrics'])) == 'fd_effnet_lite0'
    assert first['metrics']['fd_effnet_lite0'] > 10
    assert 'swd' in first['metrics']
    assert not [name for name in first['metrics'] if 'fid' in name]
    for other in results[1:]:
        assert other['metrics'] == pytest.approx(first['metrics'], rel=1e-9)
    assert results[2]['card']['evaluators']['GenerationMetric']['labels'] == 'balanced, grouped by class'
    folder = sets / 'work' / 'samples'
    assert json.loads((folder / 'metrics.json').read_text())['metrics'] == first['metrics']
    assert 'fd_effnet_lite0' in (folder / 'report.html').read_text()
    assert 'fd_effnet_lite0 ↓' in capsys.readouterr().out


def test_a_set_is_its_own_reference(sets):
    words = ['--metrics', 'fd,swd', '--min-images', '2', '--out', str(sets / 'work')]
    result = run(score, [str(sets / 'samples'), str(sets / 'samples.npz'), *OFFLINE, *words])
    assert result['metrics'] == {
        'fd_effnet_lite0': pytest.approx(0, abs=1e-4),
        'swd': pytest.approx(0, abs=1e-6),
    }
    assert (sets / 'work' / 'reference_effnet_lite0.npz').is_file()  # measured once, to be used again


def test_images_of_a_measured_reference_are_kept_only_for_metrics_that_need_them(sets):
    words = [str(sets / 'samples'), str(sets / 'images'), *OFFLINE, '--min-images', '2']
    values = {}
    for metrics in ('fd', 'fd,swd'):
        out = sets / 'work' / metrics
        values[metrics] = run(score, [*words, '--metrics', metrics, '--out', str(out)])['metrics']['fd_effnet_lite0']
        with np.load(out / 'reference_effnet_lite0.npz') as file:
            assert ('arr_0' in file, 'features' in file) == (metrics == 'fd,swd',) * 2
    assert values['fd'] == values['fd,swd']


def test_bfloat16_has_names_of_its_own_and_is_refused_against_float32(sets, capsys):
    words = [*OFFLINE, '--metrics', 'fd', '--min-images', '2', '--out', str(sets / 'work')]
    reduced = ['--dtype', 'bfloat16']
    result = run(score, [str(sets / 'samples'), str(sets / 'images'), *words, *reduced])
    assert list(result['metrics']) == ['fd_effnet_lite0_bf16']
    assert result['card']['evaluators']['GenerationMetric']['extractor']['dtype'] == 'bfloat16'
    plain = run(score, [str(sets / 'samples'), str(sets / 'images'), *words])['metrics']['fd_effnet_lite0']
    # of twelve pictures of enlarged noise: features differ by 5 %, and the distance was seen to differ by as much
    assert result['metrics']['fd_effnet_lite0_bf16'] == pytest.approx(plain, rel=0.15)
    assert result['metrics']['fd_effnet_lite0_bf16'] != plain
    run(reference, [str(sets / 'images'), str(sets / 'ref.npz'), *OFFLINE, '--size', '32'])
    message = fails(score, [str(sets / 'samples'), str(sets / 'ref.npz'), *words, *reduced], capsys)
    assert "its key is 'effnet_lite0', here it is 'effnet_lite0_bf16'" in message
    run(reference, [str(sets / 'images'), str(sets / 'ref16.npz'), *OFFLINE, '--size', '32', *reduced])
    again = run(score, [str(sets / 'samples'), str(sets / 'ref16.npz'), *words, *reduced])
    assert again['metrics']['fd_effnet_lite0_bf16'] == pytest.approx(result['metrics']['fd_effnet_lite0_bf16'])
    with pytest.raises(SystemExit):
        run(score, [str(sets / 'samples'), str(sets / 'images'), *words, '--dtype', 'float16'])
    assert "--dtype must be 'float32' or 'bfloat16', got 'float16'" in capsys.readouterr().err


def fails(command, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(command, words)
    return str(stopped.value)


def test_mistakes_are_one_message(sets, capsys, monkeypatch):
    samples, images = str(sets / 'samples'), str(sets / 'images')
    out = ['--out', str(sets / 'work')]
    assert 'no such folder or zip of images' in fails(score, [str(sets / 'none'), images, *OFFLINE, *out], capsys)
    message = fails(score, [samples, images, *OFFLINE, *out], capsys)
    assert 'fd_effnet_lite0: 12 samples, but it needs 1281 or more' in message
    message = fails(score, [samples, images, '--extractor', 'EfficientNetLite', *out], capsys)
    assert "Unknown feature extractor 'EfficientNetLite'. Did you mean 'EfficientNetLite0'?" in message
    monkeypatch.setenv('EQZOO_WEIGHTS_DIR', str(sets))
    message = fails(score, [samples, images, *out], capsys)
    assert 'FIDInception' in message
    assert 'tools/download.py fid-inception' in message
    assert '--extractor EfficientNetLite0' in message
    assert not list((sets / 'work').iterdir())  # all of this before anything is measured
    Image.fromarray(pixels(1, 3, size=16)[0]).save(sets / 'samples' / '0' / 'small.png')
    message = fails(score, [samples, images, *OFFLINE, '--metrics', 'fd', '--min-images', '2', *out], capsys)
    assert "0/small.png: 16 x 16 pixels; crop='exact' accepts 32 x 32 only" in message


def test_statistics_of_another_size_or_crop_are_refused(sets, capsys):
    run(reference, [str(sets / 'images'), str(sets / 'large.npz'), *OFFLINE, '--size', '64'])
    run(reference, [str(sets / 'images'), str(sets / 'pil.npz'), *OFFLINE, '--size', '32', '--crop', 'resize_pil'])
    words = [*OFFLINE, '--metrics', 'fd', '--min-images', '2', '--out', str(sets / 'work')]
    message = fails(score, [str(sets / 'samples.npz'), str(sets / 'large.npz'), *words], capsys)
    assert 'large.npz: statistics of images of 64 x 64 pixels; the samples have 32 x 32. Make' in message
    assert 'tools/reference.py IMAGES FILE.npz --size 32' in message
    message = fails(score, [str(sets / 'samples'), str(sets / 'pil.npz'), *words, '--crop', 'center'], capsys)
    assert "pil.npz: statistics of images cropped by 'resize_pil'; these are cropped by 'center'" in message
    assert run(score, [str(sets / 'samples'), str(sets / 'pil.npz'), *words])['metrics']['fd_effnet_lite0'] > 10


def test_an_unreadable_sample_is_named_with_its_reason(sets, capsys):
    (sets / 'samples' / '0' / '000.png').write_bytes(b'')
    words = [*OFFLINE, '--metrics', 'fd', '--min-images', '2', '--out', str(sets / 'work')]
    message = fails(score, [str(sets / 'samples'), str(sets / 'samples.npz'), *words], capsys)
    assert message.endswith('samples: cannot read 0/000.png (the file is empty); replace or remove the file.')
    message = fails(reference, [str(sets / 'samples'), str(sets / 'r.npz'), *OFFLINE, '--size', '32'], capsys)
    assert 'samples: cannot read 0/000.png (the file is empty); replace or remove the file.' in message
    (sets / 'images' / '0' / '000.png').rename(sets / 'images' / '0' / 'a.heic')
    run(reference, [str(sets / 'images'), str(sets / 'r.npz'), *OFFLINE, '--size', '40'])
    said = capsys.readouterr().err
    assert 'images: 1 file is left out, since its name does not end as images do: 1 .heic.' in said
    assert 'reference: images smaller than the crop are enlarged, such as 0/001.png (32 x 32), ' in said


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--metrics', 'fid'], r"--metrics: there is no 'fid'. Did you mean 'fd'\? Expected any of fd, sfd, is, pr"),
        (['--metrics', 'is'], "--metrics: is: effnet_lite0 is not FID's Inception; leave it out"),
        (['--metrics', 'kid'], '--metrics: kid: it needs 1,000 images or more, and there are 12 samples and 14 images'),
        (['--metrics', 'fd'], '12 samples, but it needs 1281 or more for a covariance of full rank; .* --min-images 2'),
        (['--metrics', 'fd', '--min-images', '14'], '12 samples, but it needs 14 or more'),
        (['--min-images', '1'], '--min-images must be at least 2, got 1'),
        (['--crop', 'middle'], "crop must be one of .*, got 'middle'"),
        (['--batch-size', '0'], '--batch-size must be at least 1, got 0'),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(sets, words, message, capsys, monkeypatch):
    monkeypatch.setattr('eqzoo.engine.references.make_reference', lambda *_, **__: pytest.fail('measured'))
    images = [str(sets / 'samples'), str(sets / 'images'), *OFFLINE, '--out', str(sets / 'work' / 'out')]
    assert re.search(message, fails(score, [*images, *words], capsys))
    assert not (sets / 'work' / 'out').exists()


def test_kid_is_left_out_of_a_small_set_and_said(sets, capsys):
    words = [str(sets / 'samples'), str(sets / 'images'), *OFFLINE, '--min-images', '2', '--out', str(sets / 'work')]
    result = run(score, words)
    assert 'kid is left out: it needs 1,000 images or more, and there are 12 samples and 14' in capsys.readouterr().out
    assert [name for name in result['metrics'] if name.startswith(('fd', 'kid', 'precision', 'swd'))] == [
        'fd_effnet_lite0',
        'precision_effnet_lite0',
        'swd',
    ]


def test_a_reference_is_not_overwritten_unasked(sets, capsys):
    words = [str(sets / 'images'), str(sets / 'ref.npz'), *OFFLINE, '--size', '32', '--limit', '4']
    run(reference, words)
    before = (sets / 'ref.npz').read_bytes()
    assert 'exists already; --overwrite' in fails(reference, words, capsys)
    run(reference, [*words, '--overwrite'])
    assert (sets / 'ref.npz').read_bytes() == before


def test_a_reference_is_an_npz_file_and_never_a_folder(sets, capsys):
    for out in ('images', 'stats'):
        message = fails(reference, [str(sets / 'images'), str(sets / out), *OFFLINE, '--overwrite'], capsys)
        assert 'expected an npz file to write, such as reference.npz' in message
    assert len([*(sets / 'images').rglob('*.png')]) == 14


def test_a_config_names_its_own_images(sets, capsys):
    message = fails(reference, ['configs/dit/dit_tiny_shapes.py', str(sets / 'a.npz'), '--limit', '10'], capsys)
    assert '--limit: the config names its images and extractor in test_evaluators; leave the option out' in message


def test_samples_of_one_name_do_not_replace_each_others_results(sets, capsys, monkeypatch):
    run(reference, [str(sets / 'images'), str(sets / 'ref.npz'), *OFFLINE, '--size', '32'])
    monkeypatch.chdir(sets / 'work')
    rest = [str(sets / 'ref.npz'), *OFFLINE, '--metrics', 'swd']
    for name in ('a', 'b'):
        shutil.copytree(sets / 'samples', sets / name / 'cfg1.5')
    run(score, [str(sets / 'a/cfg1.5'), *rest])
    assert (sets / 'work/work_dirs/score/cfg1.5/metrics.json').is_file()
    message = fails(score, [str(sets / 'b/cfg1.5'), *rest], capsys)
    assert re.search('work_dirs/score/cfg1.5 has the results of .*a/cfg1.5; give another folder .*: --out', message)


def test_a_configs_reference_is_that_of_its_data_set(sets, capsys):
    """The file that each test of the config would measure for itself, equal to that of the images themselves."""
    data = dict(type='ImageFolder', root=str(sets / 'images'), size=32)
    evaluators = [dict(type='GenerationMetric', extractor=dict(type='EfficientNetLite0'), reference=data)]
    config = 'configs/dit/dit_tiny_shapes.py'
    message = fails(reference, [config, str(sets / 'a.npz'), f'test_evaluators={evaluators!r}'], capsys)
    assert 'the reference ImageFolder has images of 32 x 32 pixels, the samples have 64 x 64; set size=64' in message
    # before the generator is trained, too
    assert message in fails(train, [config, f'test_evaluators={evaluators!r}', '--dry-run'], capsys)
    words = [f'test_evaluators={evaluators!r}', 'cache_dataloader.dataset.size=32']
    run(reference, [config, str(sets / 'a.npz'), *words])
    run(reference, [str(sets / 'images'), str(sets / 'b.npz'), *OFFLINE, '--size', '32'])
    with np.load(sets / 'a.npz') as first, np.load(sets / 'b.npz') as second:
        assert {*first.files} >= {'mu', 'sigma', 'arr_0'}
        for name in ('mu', 'sigma', 'arr_0'):
            assert np.array_equal(first[name], second[name])
    none = [dict(type='GenerationSlicedWasserstein', reference=str(sets / 'a.npz'))]
    message = fails(reference, [config, str(sets / 'c.npz'), f'test_evaluators={none!r}'], capsys)
    assert 'none of its test_evaluators has an extractor and a data set for its reference' in message
    message = fails(reference, [str(sets / 'images'), str(sets / 'c.npz'), *OFFLINE, 'seed=1'], capsys)
    assert 'seed=1: keys can be set in a config only' in message
    evaluators[0]['reference']['root'] = str(sets / 'nowhere')
    words[0] = f'test_evaluators={evaluators!r}'
    message = fails(reference, [config, str(sets / 'c.npz'), *words], capsys)
    assert f'{config} cannot be measured yet: ' in message


def test_a_configs_reconstructions_are_those_of_its_autoencoder(sets, capsys):
    """The file that each test of the config would measure for itself."""
    from eqzoo.checkpoints.autoencoder import autoencoder_digest
    from eqzoo.checkpoints.config import plain_config
    from eqzoo.config import load_config
    from eqzoo.engine.references import make_reference
    from eqzoo.evaluators.reference import read_reference
    from eqzoo.registry import build

    data = dict(type='ImageFolder', root=str(sets / 'images'), size=64)
    metric = dict(type='GenerationMetric', extractor=dict(type='EfficientNetLite0'), reference=data)
    evaluators = [metric, dict(metric, against='reconstructions')]
    config = 'configs/dit/dit_tiny_shapes.py'
    weights = sets / 'autoencoder.pth'
    autoencoder = build({**load_config(config).model.autoencoder.to_dict(), 'weights': None}).eval()
    own = plain_config(load_config(config).model.autoencoder)
    torch.save({'state_dict': autoencoder.state_dict(), 'autoencoder': own}, weights)
    words = [f'model.autoencoder.weights={weights}', f'test_evaluators={evaluators!r}']
    run(reference, [config, str(sets / 'own.npz'), '--reconstructions', *words])
    extractor = build(metric['extractor'])
    make_reference(build(data), extractor, sets / 'wanted.npz', autoencoder=autoencoder)
    found, wanted = (read_reference(sets / name) for name in ('own.npz', 'wanted.npz'))
    assert found.autoencoder == wanted.autoencoder == autoencoder_digest(autoencoder)
    assert torch.equal(found.pooled.mean, wanted.pooled.mean)
    assert not found.has_images
    message = fails(reference, [str(sets / 'images'), str(sets / 'x.npz'), *OFFLINE, '--reconstructions'], capsys)
    assert '--reconstructions needs the config of a generator' in message
    words = [f'model.autoencoder.weights={weights}', f'test_evaluators={evaluators[:1]!r}']
    message = fails(reference, [config, str(sets / 'x.npz'), '--reconstructions', *words], capsys)
    assert 'its reference of reconstructions' in message
    words[1] = f'test_evaluators={evaluators!r}'
    message = fails(
        reference,
        [config, str(sets / 'x.npz'), '--reconstructions', 'model.autoencoder.weights=gone.pth', words[1]],
        capsys,
    )
    assert 'cannot be measured yet: weights of KLAutoencoder is missing' in message or 'gone.pth' in message


def test_the_images_features_are_kept_with_them(sets):
    """Those of images that can be read; tests then need not extract them again."""
    from eqzoo.data import ImageFolder
    from eqzoo.engine.references import make_reference
    from eqzoo.evaluators.reference import read_reference
    from eqzoo.vision import EfficientNetLite0

    damaged = sets / 'images' / '0' / '003.png'
    damaged.write_bytes(damaged.read_bytes()[:60])
    extractor = EfficientNetLite0(size=32)
    assert make_reference(ImageFolder(str(sets / 'images'), 32), extractor, sets / 'a.npz', num_stored=14) == 13
    made = read_reference(sets / 'a.npz', extractor)
    images = torch.from_numpy(made.images().copy()).permute(0, 3, 1, 2)
    assert len(images) == made.num_images == 13
    assert torch.allclose(made.features(), extractor(images).pooled, atol=1e-5)
    assert make_reference(ImageFolder(str(sets / 'images'), 32), extractor, sets / 'b.npz', num_stored=0) == 0
    none = read_reference(sets / 'b.npz', extractor)
    assert not none.has_images
    assert none.features() is None
    assert torch.equal(none.pooled.mean, made.pooled.mean)


def test_an_equal_number_of_images_per_class_is_kept(sets):
    from eqzoo.data import ImageFolder
    from eqzoo.engine.references import choose_stored

    for number in range(7, 20):  # class 1 has three times as many
        Image.fromarray(pixels(1, number)[0]).save(sets / 'images' / '1' / f'{number:03d}.png')
    data = ImageFolder(str(sets / 'images'), 32)
    labels = np.asarray(data.labels())
    assert [int((labels[choose_stored(data, 8, 'balanced')] == each).sum()) for each in (0, 1)] == [4, 4]
    assert [int((labels[choose_stored(data, 18, 'balanced')] == each).sum()) for each in (0, 1)] == [7, 11]
    drawn = labels[choose_stored(data, 8, 'random')]
    assert len(drawn) == 8
    assert choose_stored(data, 99, 'balanced') == list(range(27))
