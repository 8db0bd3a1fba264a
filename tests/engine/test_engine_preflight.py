"""Preflight: everything missing in one message, and every folder of images listed once."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from PIL import Image
from torch.utils.data import Dataset

from eqzoo.commands.cache_latents import cache_latents
from eqzoo.commands.test import test as evaluate
from eqzoo.commands.train import train
from eqzoo.config import load_config
from eqzoo.data import ImageFolder
from eqzoo.data.folder_index import IndexedFolder
from eqzoo.data.latents.write import write_store
from eqzoo.engine import shrink
from eqzoo.engine.preflight import check_ready, missing
from eqzoo.registry import Requirement, build

PLAIN = 'configs/demo/plain.py'


def image_folder(folder, count=8):
    folder.mkdir()
    for number in range(count):
        Image.new('RGB', (64, 64), (number, 0, 0)).save(folder / f'{number}.png')
    return dict(type='ImageFolder', root=str(folder), size=64)


@pytest.fixture
def listings(monkeypatch):
    """The number of times that each folder of images has been listed, by its name."""
    counts = Counter()
    names = IndexedFolder.names
    monkeypatch.setattr(IndexedFolder, 'names', lambda self: counts.update([self.root.name]) or names(self))
    # --smoke keeps the folders
    monkeypatch.setattr(ImageFolder, 'smoke', classmethod(lambda cls, arguments: dict(type='ImageFolder', **arguments)))
    return counts


def test_training_and_testing_list_each_folder_once(tmp_path, listings):
    folders = {f'{each}_dataloader': image_folder(tmp_path / each) for each in ('train', 'val')}
    words = [f'{key}.dataset={dataset}' for key, dataset in folders.items()]
    extractor, reference = dict(type='EfficientNetLite0', size=32), image_folder(tmp_path / 'reference')
    interpolation = dict(type='InterpolationFrechet', extractor=extractor, reference=reference)
    words += [f'evaluators={[interpolation]!r}', 'default_hooks.checkpoint.save_best=None']
    train(PLAIN, overrides=[f'work_dir={tmp_path / "run"}', *words], smoke=True)
    assert listings == {'train': 1, 'val': 1, 'reference': 1}
    test_set = f'test_dataloader.dataset={image_folder(tmp_path / "test")}'
    evaluate(PLAIN, overrides=[f'work_dir={tmp_path / "run"}', words[2], test_set], smoke=True)
    assert listings == {'train': 1, 'val': 1, 'reference': 2, 'test': 1}
    train(PLAIN, overrides=[f'work_dir={tmp_path / "run"}', *words], smoke=True, dry_run=True)
    assert listings == {'train': 2, 'val': 2, 'reference': 3, 'test': 1}


def test_data_sets_are_opened_with_their_parts(tmp_path, listings):
    """The pictures of a store are a part of it: opened once, by the store."""
    images = image_folder(tmp_path / 'images')
    autoencoder = build(dict(type='KLAutoencoder', block_out_channels=(8, 8), norm_num_groups=4)).eval()
    write_store(autoencoder, build(images), tmp_path / 'store', batch_size=8)
    listings.clear()
    store = dict(type='LatentStore', root=str(tmp_path / 'store'), images=images)
    datasets = check_ready(Config(dict(loader=dict(dataset=store), other=dict(type='Shapes'))), '', ('loader', 'other'))
    assert {place: type(dataset).__name__ for place, dataset in datasets.items()} == {
        'loader.dataset': 'LatentStore',
        'other': 'Shapes',
    }
    assert listings == {'images': 1}


def test_everything_missing_is_named_at_once_with_all_its_places(tmp_path):
    gone = dict(type='ImageFolder', root='/nowhere/images', size=8)
    (tmp_path / 'empty').mkdir()
    empty = dict(type='ImageFolder', root=str(tmp_path / 'empty'), size=8)
    weights = dict(type='KLAutoencoder', weights='/nowhere/a.pth')
    parts = dict(base=weights, one=dict(dataset=gone), two=[gone, empty])
    with pytest.raises(ValueError, match='cannot run yet: 3 missing') as stopped:
        check_ready(Config(parts), 'python tools/x.py C', tuple(parts))
    message = str(stopped.value)
    for part in ('/nowhere/a.pth', '/nowhere/images', '(one.dataset, two[0])', '(two[1])', 'no images in this folder'):
        assert part in message
    assert message.endswith('python tools/x.py C --smoke')


class Lazy(Dataset):
    """A user's data set, which needs more than its constructor checks."""

    def __init__(self, root):
        self.root = root

    @classmethod
    def requirements(cls, arguments):
        return [Requirement('a key', arguments['root'], 'make one')]


def test_a_users_data_set_is_asked_for_its_requirements_too():
    assert [(where, each.what) for where, each in missing(dict(data=dict(type=Lazy, root='r')), ('data',))] == [
        ('data', 'a key')
    ]


def test_names_are_checked_before_anything_is_opened(listings, tmp_path):
    parts = dict(loader=dict(dataset=image_folder(tmp_path / 'images')), base=dict(type='KLAutoencoder', scales=1))
    with pytest.raises(ValueError, match=r"base: KLAutoencoder has no argument 'scales'. Did you mean 'scale'"):
        missing(parts, tuple(parts))
    assert not listings


def test_a_wrong_value_is_refused_with_its_place(tmp_path):
    wrong = dict(image_folder(tmp_path / 'images'), size=0)
    with pytest.raises(ValueError, match=r'loader.dataset: ImageFolder.size must be at least 1, got 0'):
        check_ready(Config(dict(loader=dict(dataset=wrong))), '', ('loader',))


def test_a_value_that_only_the_constructor_judges_is_left_to_the_build(tmp_path):
    wrong = dict(image_folder(tmp_path / 'images'), crop='middle')
    assert check_ready(Config(dict(loader=dict(dataset=wrong))), '', ('loader',)) == {}
    assert missing(dict(data=wrong), ('data',)) == []


NOTHING = """
model = dict(
    type='AutoencoderTraining',
    autoencoder=dict(type='KLAutoencoder', block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4),
    objective=dict(type='Plain'),
    reconstruction_loss=dict(type='ReconstructionLoss', pixel=dict(type='L1')),
)
loader = dict(batch_size=4, num_workers=0, dataset=dict(type='Shapes', num_images=8, size=32))
"""
TO_TRAIN = """
train_dataloader = loader
optim_wrapper = dict(autoencoder=dict(optimizer=dict(type='Adam', lr=1e-4)))
train_cfg = dict(max_iters=3)
"""


def config_of(tmp_path, *parts):
    (tmp_path / 'mine.py').write_text('\n'.join([NOTHING, *parts]))
    return str(tmp_path / 'mine.py')


def test_a_config_from_nothing_trains_with_the_defaults(tmp_path):
    train(config_of(tmp_path, TO_TRAIN), overrides=[f'work_dir={tmp_path}/run'])
    assert [file.name for file in (tmp_path / 'run').glob('*.pth')] == ['iter_3.pth']  # one, not of every step
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert 'Epoch(' not in log.read_text()


def test_images_to_validate_on_need_evaluators(tmp_path):
    with pytest.raises(ValueError, match=r"mine.py: val_dataloader has images.*evaluators=\[dict\(type='Recon"):
        train(config_of(tmp_path, TO_TRAIN, 'val_dataloader = loader'), overrides=[], dry_run=True)
    train(config_of(tmp_path, TO_TRAIN, 'val_dataloader = loader', 'evaluators = []'), overrides=[], dry_run=True)


def test_a_smoke_run_needs_no_key_that_the_command_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cache_latents(config_of(tmp_path, 'cache_dataloader = loader'), overrides=[], out='a', smoke=True).index
    config = load_config('configs/dit/dit_tiny_shapes.py')
    for key in ('sampling', 'train_cfg', 'train_dataloader'):
        config._cfg_dict.pop(key)
    assert not {'sampling', 'train_cfg', 'train_dataloader'} & {*shrink(config)}


@pytest.mark.parametrize('key', ['evaluators', 'test_evaluators'])
def test_a_test_measures_by_its_own_evaluators_or_those_of_validation(key, tmp_path):
    measured = f"{key} = [dict(type='ReconstructionMetric')]"
    work_dir = f'work_dir={tmp_path}/run'
    autoencoder = build(load_config(config_of(tmp_path)).model.autoencoder)
    torch.save(autoencoder.state_dict(), tmp_path / 'weights.pth')
    config = config_of(tmp_path, 'test_dataloader = loader', measured)
    result = evaluate(config, str(tmp_path / 'weights.pth'), overrides=[work_dir])
    assert list(result['metrics']) == ['psnr', 'ssim']
    sampling = "sampling = dict(num_samples=4, batch_size=4, sampler=dict(type='ODE'))"
    with pytest.raises(ValueError, match='describes no evaluation: it has no test_dataloader'):
        evaluate(config_of(tmp_path, sampling, measured), overrides=[work_dir])


def test_commands_in_messages_can_be_copied_whatever_the_config_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    measured = "test_dataloader = loader\nevaluators = [dict(type='ReconstructionMetric')]"
    latents = "loader.update(dataset=dict(type='LatentStore', root='no'))"
    for name, word in (('my config.py', "'my config.py'"), ('-mine.py', './-mine.py')):
        Path(name).write_text('\n'.join([NOTHING, measured, latents, TO_TRAIN]))
        with pytest.raises(ValueError, match=f'(?s)cache_latents.py {word}.*tools/train.py {word} --smoke$'):
            train(name, overrides=[], dry_run=True)
        with pytest.raises(ValueError, match=rf'Train first \(python tools/train.py {word}\)'):
            evaluate(name, overrides=[])
