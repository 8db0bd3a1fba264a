"""Every how-to is followed: its files are written, its commands run in their order."""

import json
import re
import runpy
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from command_lines import function_of, tool_of
from markdown_pages import ROOT, commands, files
from PIL import Image

from eqzoo.commands.cli import run
from eqzoo.config import load_config
from eqzoo.data import ImageFolder
from eqzoo.engine import latest_checkpoint
from eqzoo.generators.interpolant import Interpolation
from eqzoo.registry import build, find_component
from eqzoo.studies.plan import plan_study
from eqzoo.studies.preflight import missing_of
from eqzoo.studies.study import load_study

KINDS = ('transform', 'loss', 'penalty', 'autoencoder', 'generator', 'evaluator')
PAGES = [f'docs/howto/{kind}.md' for kind in KINDS]


def test_a_published_generator_is_fine_tuned_as_the_page_says(workplace, monkeypatch):
    """Its config, and the line that it prints, on a network with the page's shapes and fewer blocks."""
    page = 'docs/howto/finetune_generator.md'
    folder = workplace(page)
    config = load_config(folder / 'finetune_config.py')
    assert (config.work_dir, config.sampling.num_samples) == ('work_dirs/my_dit', 50_000)
    network = {**config.model.generator.network.to_dict(), 'size': (1, 1152, 16)}
    network['weights'] = str(folder / 'published.pt')
    torch.save(build({**network, 'num_classes': 1000, 'weights': None, 'adapt': ()}).state_dict(), network['weights'])
    shown = next(line for line in (ROOT / page).read_text().splitlines() if line.startswith('adapted weights'))
    assert build(network).adapted == [shown.removeprefix('adapted weights').strip()]


@pytest.mark.parametrize(
    ('family', 'model', 'added', 'left_out'),
    [
        ('sit.sit_xl2', 'SiT', '', None),
        ('lightningdit.lightningdit_xl1_64ep', 'SiT', '', None),
        ('repa.repa_xl2', 'REPA', 'train_dataloader.dataset.images = cache_dataloader.dataset', None),
        ('maskgit.maskgit_base', 'MaskGIT', '', 'custom_hooks.ema.decay'),
    ],
)
def test_other_published_generators_take_the_changes_that_the_page_names(family, model, added, left_out, workplace):
    """Each config loads, and reads the reader's images and latents only."""
    page = 'docs/howto/finetune_generator.md'
    folder = workplace(page)
    assert all(f'`{words}`' in (ROOT / page).read_text() for words in (added, left_out) if words)
    lines = (folder / 'finetune_config.py').read_text().replace('dit.dit_xl2', family).splitlines()
    lines = [line for line in lines if not (left_out and line.startswith(left_out))]
    (folder / 'finetune_config.py').write_text('\n'.join([*lines, added]))
    config = load_config(folder / 'finetune_config.py')
    assert config.model.generator.type == model
    assert {each['root'] for each in datasets(config.train_dataloader.to_dict())} <= {
        'work_dirs/my_latents',
        'my_images',
    }


@pytest.mark.parametrize('page', PAGES)
def test_a_component_trains_and_is_tested(page, workplace, monkeypatch):
    folder = workplace(page)
    monkeypatch.setenv('EQZOO_TRACEBACK', '1')
    shown = [words for words in commands(page) if tool_of(words)]
    assert [tool_of(words)[0] for words in shown[:1]] == ['train']
    assert 'test' in [tool_of(words)[0] for words in shown]
    for words in shown:
        function, rest = function_of(*tool_of(words))
        run(function, rest)
    (run_of,) = (folder / 'work_dirs/smoke').glob('*/*/metrics.json')
    assert latest_checkpoint(run_of.parent).name == 'iter_4.pth'
    metrics = json.loads(run_of.read_text())['metrics']
    assert metrics
    assert all(np.isfinite(value) for value in metrics.values())
    for metric in METRICS.get(page, ()):
        assert metric in metrics


METRICS = {
    'docs/howto/transform.md': ('eq_err/window',),
    'docs/howto/evaluator.md': ('sharpness', 'gradient_psnr'),
    'docs/howto/generator.md': ('swd',),
}


def component(workplace, monkeypatch, kind, name):
    """Import a how-to's module, and return the class that it registers."""
    folder = workplace(f'docs/howto/{kind}.md')
    monkeypatch.syspath_prepend(folder)
    module = next(file for file in files(f'docs/howto/{kind}.md') if not file.endswith('_config.py'))
    __import__(module.removesuffix('.py'))
    return find_component(name)


def test_smoothness_is_relative_to_the_variance(workplace, monkeypatch):
    penalty = component(workplace, monkeypatch, 'penalty', 'Smoothness')(2.0)
    latents = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    rough = ((latents[:, :, 1:] - latents[:, :, :-1]) ** 2).mean() + (
        (latents[..., 1:] - latents[..., :-1]) ** 2
    ).mean()
    for scale in (1.0, 10.0):
        step = SimpleNamespace(posterior=SimpleNamespace(mean=scale * latents), log={})
        torch.testing.assert_close(penalty(step, None)['smoothness'], 2 * rough / latents.var())


def test_windows_are_the_same_in_images_and_latents(workplace, monkeypatch):
    window = component(workplace, monkeypatch, 'transform', 'Window')()
    x = torch.randn(2, 3, 8, 12)
    upsampled = x.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    for seed in range(10):
        params = window.sample(torch.Generator().manual_seed(seed), (8, 12))
        cut = window(x, params)
        assert 4 <= cut.shape[2] < 8
        assert 6 <= cut.shape[3] < 12
        assert torch.equal(window(upsampled, params), cut.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3))
    with pytest.raises(ValueError, match='Window.minimum must be in'):
        type(window)(1.5)


def test_edges_see_what_pixels_do_not(workplace, monkeypatch):
    component(workplace, monkeypatch, 'loss', 'Edges')
    loss = build(dict(type='Edges', pixel=dict(type='L1'), weight=0.5))
    target = torch.zeros(1, 3, 4, 4)
    assert torch.equal(loss(target + 0.5, target), torch.full((1, 3, 4, 4), 0.5))  # no edge in either
    step = target.clone()
    step[..., 2:] = 1.0
    assert loss(step, target).sum() == step.sum() + 0.5 * 3 * 4  # one edge of height 1, in every row
    with pytest.raises(ValueError, match='Edges.weight must not be negative'):
        build(dict(type='Edges', pixel=dict(type='L1'), weight=-1))


def test_the_robust_loss_grows_linearly(workplace, monkeypatch):
    robust = component(workplace, monkeypatch, 'generator', 'RobustSiT')
    process = build(dict(type='Interpolant'))
    generator = robust(build(dict(type='MixerNetwork', depth=1, width=8, latent_size=4, num_classes=2)), process)
    x = torch.zeros(1, 4, 4, 4)  # data and noise; the velocity between them is 0
    generator.interpolate = lambda *_: Interpolation(x, torch.tensor([0.5]), torch.tensor([0]), x)

    def loss(error):
        generator.network.forward = lambda *_: x + error
        return float(generator.loss({'latents': x}, None)['loss'])

    assert loss(0.01) == pytest.approx(0.01**2 / (2 * 0.5), rel=1e-3)
    assert loss(200) - loss(100) == pytest.approx(100, rel=1e-3)


def test_sharpness_is_one_of_the_images_themselves_and_less_when_blurred(workplace, monkeypatch):
    evaluator = component(workplace, monkeypatch, 'evaluator', 'Sharpness')

    class View:
        images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1

    values = {}
    for name, blurred in (('same', View.images), ('blurred', torch.nn.functional.avg_pool2d(View.images, 3, 1, 1))):
        View.reconstruction = blurred
        metric = evaluator()
        metric.process(View)
        values[name] = metric.evaluate(2)
    assert values['same'] == {'sharpness': 1.0, 'gradient_psnr': 100.0}
    assert values['blurred']['sharpness'] < 0.6


# The page's own words, of a run that takes seconds: a small network, few and small images, nothing to download.
SMALL = [
    'model.autoencoder.block_out_channels=(32,32,32,32)',
    'model.autoencoder.layers_per_block=1',
    'model.reconstruction_loss.perceptual=none',
    'model.micro_batch_size=none',
    *(f'{loader}_dataloader.num_workers=0' for loader in ('train', 'val', 'test')),
    *(f'{loader}_dataloader.dataset.size=64' for loader in ('train', 'val', 'test')),
    'train_dataloader.batch_size=2',
]
STEPS = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2']


def test_a_vae_of_diffusers_comes_back_equivariant(workplace, monkeypatch):
    from diffusers import AutoencoderKL

    page = 'docs/howto/finetune.md'
    folder = workplace(page)
    monkeypatch.setenv('EQZOO_TRACEBACK', '1')
    down, up = ('DownEncoderBlock2D',) * 4, ('UpDecoderBlock2D',) * 4
    vae = AutoencoderKL(3, 3, down, up, (32,) * 4, layers_per_block=1, latent_channels=4, scaling_factor=0.18215)
    vae.save_pretrained(folder / 'my-vae')
    write_images(folder / 'my_images.zip', 100)
    seen = []
    for words in commands(page):
        tool, rest = tool_of(words)
        if tool in ('benchmark', 'download') or '--dry-run' in rest:  # the table of memory takes a minute
            continue
        rest = [word.replace('iter_10000', 'iter_2') for word in rest]
        if 'vae_config.py' in rest and '--smoke' not in rest:
            rest += SMALL + (STEPS if tool == 'train' else [])
        function, rest = function_of(tool, rest)
        run(function, rest)
        seen.append(tool)
    assert seen == [*['train'] * 4, 'test', 'test', 'compare', 'latent_stats', 'convert']
    encoders = {
        name: torch.load(folder / 'work_dirs' / name / 'iter_2.pth')['state_dict']['autoencoder.encoder.conv_in.weight']
        for name in ('my_decoder', 'my_eq_decoder')
    }
    assert torch.equal(encoders['my_decoder'], vae.encoder.conv_in.weight)
    assert not torch.equal(encoders['my_eq_decoder'], vae.encoder.conv_in.weight)  # of the run before
    used = runpy.run_path(str(folder / 'use_vae.py'))
    assert used['decoded'].shape == (1, 3, 64, 64)
    assert used['vae'].config.scaling_factor != 0.18215  # measured again
    assert not torch.equal(used['vae'].decoder.conv_in.weight, vae.decoder.conv_in.weight)


@pytest.mark.parametrize('name', ['flux2', 'dcae_f32', 'qwen_image', 'vqgan', 'taef2'])
def test_other_autoencoders_are_fine_tuned_from_their_own_config(name, workplace):
    """The page's config with another import, and one line in place of the block that describes SD-VAE."""
    page = 'docs/howto/finetune.md'
    folder = workplace(page)
    changed = "`model.autoencoder.weights = 'my-vae'` in place of the block"
    lines = (ROOT / page).read_text().splitlines()
    (row,) = [line for line in lines if f'{name}_rot_scale' in line and changed in line]
    text = (folder / 'vae_config.py').read_text().replace('_base_.eqvae', f'eqvae.{name}_rot_scale')
    text = re.sub(
        r'model\.autoencoder = dict\(.*?\n\)\n', "model.autoencoder.weights = 'my-vae'\n", text, flags=re.DOTALL
    )
    if name == 'qwen_image':
        assert 'Qwen-Image and Wan: without `checkpointing=True`' in row
    (folder / 'vae_config.py').write_text(text)
    config = load_config(folder / 'vae_config.py')
    own = load_config(ROOT / f'configs/eqvae/{name}_rot_scale.py')
    assert config.model.autoencoder == {**own.model.autoencoder, 'weights': 'my-vae'}
    assert config.work_dir == 'work_dirs/my_vae'


def test_photographs_become_a_generator(workplace, monkeypatch):
    """The page's commands in their order, with a small network, random TAEF2 and two steps."""
    page = 'docs/howto/own_generator.md'
    folder = workplace(page)
    monkeypatch.setenv('EQZOO_TRACEBACK', '1')
    write_images(folder / 'my_photos', 80)
    torch.save(build(dict(type='TinyAutoencoder', latent_channels=32, pooled=True)).state_dict(), 'taef2.pth')
    seen = []
    for words in commands(page):
        tool, rest = tool_of(words)
        if tool == 'download' or '--dry-run' in rest:
            continue
        if '--smoke' not in rest:
            rest += SMALL_GENERATOR + ([] if tool != 'train' else ['train_cfg.max_iters=2'])
        function, rest = function_of(tool, rest)
        run(function, rest)
        seen.append(tool)
    assert seen == ['train', 'cache_latents', 'train', 'sample', 'test']
    assert np.load(folder / 'my_samples.npz')['arr_0'].shape == (64, 64, 64, 3)
    metrics = json.loads((folder / 'work_dirs/my_sit/metrics.json').read_text())['metrics']
    assert metrics['fd_effnet_lite0'] > 0


SMALL_GENERATOR = [
    'model.autoencoder.weights=taef2.pth',
    'model.generator.network.size=(1, 32, 2)',
    'model.generator.network.latent_size=8',
    'cache_dataloader.num_workers=0',
    'cache_dataloader.dataset.size=64',
    'test_evaluators.0.reference.size=64',
    'train_dataloader.batch_size=8',
    'sampling.num_samples=8',
    'test_evaluators.0.min_images=2',
]


def test_regularisers_are_compared_on_the_photographs_of_the_page(workplace):
    folder = workplace('docs/howto/compare_regularizers.md')
    write_images(folder / 'my_photos.zip', 10)
    study = load_study(folder / 'compare_study.py')
    plan = plan_study(study, range(5), folder / 'work_dirs')
    assert plan.measured.keys() == {(arm, seed) for arm in ('plain', 'EQ', 'noise', 'SE') for seed in range(5)}
    assert plan.scored.keys() == {('SiT', *each, step) for each in plan.measured for step in (2500, 5000)}
    assert all('lnc@10' not in each for each in (study.columns['autoencoder'], study.predictors))
    assert study.columns['generator']
    for name in ('my_start.py', 'my_vae.py', 'my_sit.py'):
        config = load_config(folder / name)
        roots = [value['root'] for value in datasets(config.to_dict()) if value['type'] == 'ImageFolder']
        assert set(roots) == {'my_photos.zip'}


@pytest.mark.parametrize(
    ('count', 'more', 'message'),
    [
        (2500, '', None),
        (2490, '', r'my_sit.py: test_evaluators\[0\].reference: 498 images, .*min_images is 500'),
        (1250, '', 'my_vae.py: .*: 250 images, but it needs 256 or more'),
        (
            2500,
            "test_evaluators.append(dict(type='NeighborConsistency'))",
            'my_vae.py: Neigh.* one class, .* two or more',
        ),
    ],
)
def test_photographs_without_classes_are_refused_before_the_first_stage_or_not_at_all(workplace, count, more, message):
    """In a flat zip, as on the page: of 2,500 the evaluators take the fifth that is held out."""
    folder = workplace('docs/howto/compare_regularizers.md')
    write_images(folder / 'one.zip', 1)
    with zipfile.ZipFile(folder / 'one.zip') as one, zipfile.ZipFile(folder / 'my_photos.zip', 'w') as archive:
        image = one.read('000.png')
        for number in range(count):
            archive.writestr(f'{number}.png', image)
    with (folder / 'my_vae.py').open('a') as file:
        file.write(more)
    study = load_study(folder / 'compare_study.py')
    plan = plan_study(study, [0], folder / 'work_dirs')
    if message is None:
        # nothing but what the page downloads
        lacks = re.findall('looked for: (.*)', missing_of(study, plan))
        assert all(each.startswith('eqzoo://taef2/') for each in lacks)
    else:
        with pytest.raises(ValueError, match=message):
            missing_of(study, plan)


def datasets(value):
    """Yield every part of a config that names a `root`."""
    if isinstance(value, dict):
        if 'root' in value and 'type' in value:
            yield value
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from datasets(each)


def test_photographs_are_packed_as_the_studies_read_them(workplace):
    folder = workplace('docs/studies.md')
    checkout = folder / 'clothing-dataset'
    (checkout / 'images').mkdir(parents=True)
    rows = [('one', 'T-Shirt', (300, 400)), ('two', 'Not sure', (500, 200)), ('lost', 'Hat', None)]
    for name, _, size in rows:
        if size:
            Image.new('RGB', size, 'teal').save(checkout / 'images' / f'{name}.jpg')
    lines = ['image,sender_id,label,kids', *(f'{name},1,{label},False' for name, label, _ in rows)]
    (checkout / 'images.csv').write_text('\n'.join(lines))
    target = folder / 'clothing_144.zip'
    runpy.run_path(str(folder / 'pack_clothing.py'))['pack'](checkout, target)
    images = ImageFolder(str(target), 64, below='clothing')
    assert (images.classes, len(images)) == (['not_sure', 't_shirt'], 2)
    with zipfile.ZipFile(target) as archive, Image.open(archive.open('clothing/not_sure/two.jpg')) as image:
        assert image.size == (360, 144)


def write_images(path, count):
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, 'w') as archive:
        for number in range(count):
            with archive.open(f'{number:03}.png', 'w') as file:
                Image.fromarray(rng.integers(0, 256, (72, 80, 3), dtype=np.uint8)).save(file, 'PNG')


def test_every_kind_has_its_page():
    assert sorted(path.stem for path in (ROOT / 'docs/howto').glob('*.md')) == sorted(
        [*KINDS, 'compare_regularizers', 'finetune', 'finetune_generator', 'own_generator', 'reproduce_row']
    )
