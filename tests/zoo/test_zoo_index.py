"""The metafiles: complete, consistent, and agreeing with the configs that they name."""

import re

import diffusers
import pytest
import torch
import yaml

from eqzoo.benchmarks.memory import step_peak
from eqzoo.config import configs_folder, load_config, read_config
from eqzoo.loading import autoencoder_config, load_autoencoder, released_config
from eqzoo.registry import build
from eqzoo.vision import dinov2, inception
from eqzoo.vision.weights import WeightsIdentity
from eqzoo.zoo import find_model, is_remote, models, resolve, weights_files

LPIPS = ('lpips-vgg16', 'lpips-alexnet')
EXTRACTORS = ('fid-inception', 'dinov2-vits14', 'dinov2-vitb14', 'dinov2-vitl14')
HALTON = tuple(f'halton-{size}' for size in ('tiny-256', 'small-256', 'base-256', 'small-384', 'base-384', 'large-384'))
GENERATORS = (
    *('dit-xl2-256', 'maskgit-base-256', 'maskgit-base-512', 'repa-xl2-256', 'sit-s2-256', 'sit-xl2-256'),
    *('lightningdit-xl1-64ep', 'lightningdit-xl1-800ep'),
    *HALTON,
)
JOINT = ('repae-xl1-vavae-256', 'repae-xl2-sd-256')
TRAINING_MEMORY = {
    each['Name']: each['Metadata']['Training Memory']
    for each in yaml.safe_load((configs_folder() / 'zoo/autoencoders/metafile.yml').read_text())['Models']
    if 'Training Memory' in each['Metadata']
}
AUTOENCODERS = sorted(set(models()) - set(LPIPS) - set(EXTRACTORS) - set(GENERATORS) - set(JOINT))


def test_the_index_lists_every_metafile(root):
    listed = yaml.safe_load((root / 'model-index.yml').read_text())['Import']
    assert sorted(listed) == sorted(str(path.relative_to(root)) for path in (root / 'configs').rglob('metafile.yml'))
    assert configs_folder() == root / 'configs'


def test_metafiles_are_well_formed(root):
    names = []
    for path in (root / 'configs').rglob('metafile.yml'):
        content = yaml.safe_load(path.read_text())
        collections = {each['Name'] for each in content['Collections']}
        names += [entry['Name'] for entry in content['Models']]
        assert {entry['In Collection'] for entry in content['Models']} == collections
    assert sorted(names) == sorted(models())


@pytest.mark.parametrize('name', sorted(models()))
def test_a_model_is_complete(root, name):
    model = find_model(name)
    assert (root / model.config).is_file()
    assert len({file.name for file in model.files}) == len(model.files)
    for file in model.files:
        assert file.url.startswith(('https://', 'package:'))
        assert file.name.endswith(('.safetensors', '.ckpt', '.pth', '.pt'))
        assert (file.member is None) or file.url.endswith('.zip')
        assert file.sha256 is None or re.fullmatch('[0-9a-f]{64}', file.sha256)
        revision = re.search('/resolve/([^/]+)/', file.url)
        assert revision is None or re.fullmatch('main|[0-9a-f]{40}', revision[1])  # the Hub knows no short ones
        assert resolve(file.url) == resolve(f'eqzoo://{name}/{file.name}') == file
        suffix = re.search(r'-([0-9a-f]{8})\.pth', file.name)  # torch names its files by their hash
        assert suffix is None or file.sha256.startswith(suffix[1])


# taming's files also have LPIPS, a discriminator (of three layers, and of two) and Adam's two moments of both networks.
LPIPS_NUMBERS = 14_716_992
# The Inception's batch norms have two running statistics a channel, and a count each.
RUNNING_STATISTICS = {'fid-inception': 34_526}
DISCRIMINATORS = {'vqgan-f16-1024': 2_767_809, 'vqgan-f16-16384': 663_361}
SIZED = sorted(name for name, model in models().items() if all(file.size for file in model.files))


@pytest.mark.parametrize('name', SIZED)
def test_sizes_agree_with_parameter_counts(name):
    """A file of weights is its numbers, of four bytes or two, plus headers."""
    model = find_model(name)
    count = model.parameters + RUNNING_STATISTICS.get(name, 0)
    limit = (
        120_000 if name in ('fid-inception', 'dinov2-vitl14', 'dit-xl2-256') else 60_000
    )  # many small tensors have many headers
    if name in DISCRIMINATORS:
        count, limit = 3 * (count + DISCRIMINATORS[name]) + LPIPS_NUMBERS, 600_000
    if name.startswith('maskgit'):  # with Adam's two moments
        count, limit = 3 * count, 600_000
    per_number = 2 if name in ('clothes-f8', 'flux2-vae', 'qwen-image-vae', 'sd3-vae', 'taef2') else 4
    assert 0 < sum(file.size for file in model.files) - per_number * count < limit


@pytest.mark.parametrize('name', AUTOENCODERS)
def test_the_config_builds_the_counted_parameters(root, name):
    config = autoencoder_config(root / find_model(name).config)
    class_name = config.get('class_name', 'AutoencoderKL')
    if not hasattr(diffusers, class_name):
        pytest.skip(f'diffusers {diffusers.__version__} has no {class_name}')
    with torch.device('meta'):
        autoencoder = build({**config, 'weights': None})
    assert sum(parameter.numel() for parameter in autoencoder.parameters()) == find_model(name).parameters


def check_memory(root, name, options):
    stated = TRAINING_MEMORY[name]
    config = load_config(root / stated['Config'])
    assert find_model(name).files[0] in [resolve(each) for each in weights_files(config.model.autoencoder.weights)]
    counted = {key: f'{step_peak(config, *option) / 2**30:.2f}' for key, option in options.items()}
    assert counted == {key: f'{stated[key]:.2f}' for key in options}


def test_the_stated_memory_of_the_smallest_training_step_is_what_is_counted(root):
    check_memory(root, 'taef2', {'Least GiB': ('both', 'bf16')})


@pytest.mark.slow
@pytest.mark.parametrize('name', TRAINING_MEMORY)
def test_the_stated_memory_of_a_training_step_is_what_is_counted(root, name):
    check_memory(root, name, {'GiB': ('whole', 'fp32'), 'Least GiB': ('both', 'bf16')})


@pytest.mark.parametrize('name', [*GENERATORS, *JOINT])
def test_a_generators_config_names_its_file_and_builds_the_counted_parameters(root, name):
    config = load_config(root / find_model(name).config).model.generator
    assert resolve(config.network.weights) == find_model(name).files[0]
    with torch.device('meta'):
        network = build({**config.network, 'weights': None})
    assert sum(parameter.numel() for parameter in network.parameters()) == find_model(name).parameters
    assert released_config(name) == ('generator', config.to_dict())
    if name not in JOINT:  # those are in one file with their autoencoder
        with pytest.raises(ValueError, match=rf'{name} is a generator; .*tools/sample.py configs/'):
            load_autoencoder(name)


@pytest.mark.parametrize('name', EXTRACTORS)
def test_the_extractors_of_configs_have_the_counted_parameters(root, name, monkeypatch):
    for module in (inception, dinov2):  # networks on the device 'meta' stay there
        monkeypatch.setattr(module, 'load_frozen', lambda *_: WeightsIdentity('0' * 64, is_known=True))
    monkeypatch.setattr(inception, 'fold_batch_norms', lambda network: None)  # files have norms
    extractor = build(read_config(root / find_model(name).config).extractor.to_dict())
    counted = sum(parameter.numel() for parameter in extractor.network.parameters())
    if name != 'fid-inception':
        # in Meta's files there are also the positions of 518 pixels instead of 224, and the vector of masked patches
        counted += (37**2 - 16**2 + 1) * extractor.num_features
    assert counted == find_model(name).parameters


def test_the_sources_of_autoencoders_configs_are_in_the_index(root):
    for path in (root / 'configs').glob('*/autoencoders/*.py'):
        weights = autoencoder_config(path)['weights']
        for source in weights if isinstance(weights, list) else [weights]:
            assert is_remote(source)
            assert resolve(source) in [file for model in models().values() for file in model.files]


def test_unknown_names_get_the_nearest():
    with pytest.raises(ValueError, match=r"'eqvae'. Did you mean 'eq-vae'\? .*dinov2-vitb14, .*, eq-sdxl-vae, eq"):
        find_model('eqvae')


@pytest.mark.parametrize('name', ['repae-xl2-sd-256', 'repa-xl2-256'])
def test_a_model_that_was_trained_as_both_is_either(name):
    """The zoo has REPA's autoencoder under another name, and REPA-E's in the same file alone."""
    assert released_config(name)[0] == 'generator'
    wanted, config = released_config(name, 'autoencoder')
    assert wanted == ('autoencoder' if name.startswith('repae') else 'generator')
    assert ('network' in config) is (wanted == 'generator')
