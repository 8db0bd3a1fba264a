"""References that an autoencoder has a part in: its reconstructions and its latents, measured once by that autoencoder."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torch.nn import functional as F

from eqzoo.autoencoders import Autoencoder
from eqzoo.autoencoders.base import Deterministic
from eqzoo.engine import references
from eqzoo.engine.references import make_reference, measured_references
from eqzoo.evaluators import GenerationMetric, SampleView
from eqzoo.evaluators.reference import read_reference
from eqzoo.normalization import LatentNormalization
from eqzoo.registry import build
from eqzoo.vision import FeatureExtractor, Features

SIZE, COUNT = 8, 40


class Averages(FeatureExtractor):
    """Means of a 2 x 2 grid."""

    key = 'averages'
    num_features, num_spatial = 12, 3

    def __init__(self):
        self.network = nn.Linear(1, 1)

    def extract(self, images):
        pooled = F.adaptive_avg_pool2d(images, 2).flatten(1)
        return Features(pooled, pooled[:, ::4])

    def card(self):
        return {'network': 'none'}


class Noise(torch.utils.data.Dataset):
    """Random images, smooth enough to survive a lossy autoencoder in part."""

    def __init__(self, count=COUNT, size=SIZE, seed=0):
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.randint(0, 256, (count, 3, size // 2, size // 2), generator=generator).float()
        fine = torch.randint(-60, 60, (count, 3, size, size), generator=generator)
        self.images = (F.interpolate(coarse, scale_factor=2) + fine).clamp(0, 255).to(torch.uint8)
        self.size, self.name = size, f'{count} of {size}, {seed}'

    def __len__(self):
        return len(self.images)

    def __getitem__(self, key):
        index = key[0] if isinstance(key, tuple) else key
        return dict(image=self.images[index], label=0, index=index, draw=index)

    def labels(self):
        return [0] * len(self)

    def identity(self):
        return dict(kind='Noise', name=self.name)


class Exact(Autoencoder):
    """Folds pixels into channels and back, without loss."""

    def __init__(self, channels=12, **normalization):
        super().__init__(channels, 2)
        self.normalization = LatentNormalization(channels, **normalization)
        self.weight = nn.Parameter(torch.ones(1))
        self.num_decoded = 0

    @property
    def last_layer(self):
        return self.weight

    def blocks(self):
        return []

    def encode(self, images):
        return Deterministic(F.pixel_unshuffle(images, 2))

    def decode_latents(self, z):
        self.num_decoded += len(z)
        return F.pixel_shuffle(z, 2) * self.weight


class Lossy(Exact):
    """Means of 2 x 2 pixels, which the decoder repeats and brightens."""

    def __init__(self):
        super().__init__(3, shift=0.1, scale=2.0)

    def encode(self, images):
        return Deterministic(F.avg_pool2d(images, 2))

    def decode_latents(self, z):
        self.num_decoded += len(z)
        return F.interpolate(z, scale_factor=2) * self.weight + 0.11  # no value is halfway between two of 8 bits


def draw(autoencoder, learns='latents', side=4):
    generator = SimpleNamespace(learns=learns, latent_shape=(autoencoder.latent_channels, side, side))
    return SimpleNamespace(generator=generator, autoencoder=autoencoder, image_size=2 * side)


def metric(**arguments):
    sides = dict(extractor=dict(type=Averages), reference=dict(type=Noise))
    return dict(type='GenerationMetric', **sides, metrics=('fd',), **arguments)


def latent_metric(**arguments):
    return dict(type='GenerationLatentFrechet', reference=dict(type=Noise), **arguments)


def built(evaluators, folder, autoencoder, **arguments):
    return [build(each) for each in measured_references(evaluators, folder, draw(autoencoder, **arguments))]


def measure(evaluator, images, latents=None):
    evaluator.check(len(images))
    for numbers in torch.arange(len(images)).split(16):
        chosen = None if latents is None else latents[numbers]
        evaluator.process(SampleView(images[numbers], numbers, latents=chosen))
    return evaluator.evaluate(len(images))


def lossy_in_numpy(images):
    """What `Lossy` makes of images, rounded to 8 bits."""
    x = images.numpy().astype(np.float64) / 127.5 - 1
    means = x.reshape(len(x), 3, SIZE // 2, 2, SIZE // 2, 2).mean(axis=(3, 5))
    decoded = means.repeat(2, axis=2).repeat(2, axis=3) + 0.11
    return means, np.clip(np.floor(decoded * 127.5 + 128), 0, 255)


def averages_in_numpy(images):
    half = SIZE // 2
    return images.reshape(len(images), 3, 2, half, 2, half).mean(axis=(3, 5)).reshape(len(images), -1)


def distance(first, second):
    covariances = [np.cov(rows, rowvar=False) for rows in (first, second)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    return ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)


def test_the_distance_to_reconstructions_is_that_of_numpy(tmp_path):
    samples = Noise(seed=1).images
    reference, against = built([metric(), metric(against='reconstructions')], tmp_path, Lossy())
    images, reconstructions = measure(reference, samples), measure(against, samples)
    rows = averages_in_numpy(lossy_in_numpy(Noise().images)[1])
    assert against.reference.pooled.mean.numpy() == pytest.approx(rows.mean(0), rel=1e-12)
    wanted = distance(averages_in_numpy(samples.numpy().astype(float)), rows)
    assert reconstructions == {'fd_averages/reconstructions': pytest.approx(wanted, rel=1e-9)}
    assert list(images) == ['fd_averages']
    assert reconstructions['fd_averages/reconstructions'] > 1.1 * images['fd_averages']  # brighter


def test_without_a_loss_it_is_the_distance_to_images(tmp_path):
    samples = Noise(seed=1).images
    both = built([metric(), metric(against='reconstructions')], tmp_path, Exact())
    images, reconstructions = (measure(each, samples) for each in both)
    assert reconstructions['fd_averages/reconstructions'] == images['fd_averages'] > 1


def test_reconstructions_are_at_zero_from_themselves(tmp_path):
    (against,) = built([metric(against='reconstructions')], tmp_path, Lossy())
    samples = torch.from_numpy(lossy_in_numpy(Noise().images)[1]).to(torch.uint8)
    assert measure(against, samples)['fd_averages/reconstructions'] == pytest.approx(0, abs=1e-9)
    assert measure(against, Noise().images)['fd_averages/reconstructions'] > 100


def test_the_card_identifies_the_autoencoder_and_the_images(tmp_path):
    from eqzoo.checkpoints.autoencoder import autoencoder_digest

    autoencoder = Lossy()
    images, against = (
        each.card() for each in built([metric(), metric(against='reconstructions')], tmp_path, autoencoder)
    )
    assert against['autoencoder'] == autoencoder_digest(autoencoder)
    assert against['against'] == 'reconstructions from the posterior mean'
    assert against['reference'] == {'num_images': COUNT, 'data': Noise().identity()}
    assert not {'autoencoder', 'against'} & {*images}


def test_a_reference_is_measured_once_for_each_autoencoder(tmp_path):
    autoencoder = Lossy()
    for _ in range(2):
        built([metric(against='reconstructions')] * 2, tmp_path, autoencoder)
        assert autoencoder.num_decoded == COUNT
    other = Lossy()
    other.weight.data += 0.1
    built([metric(against='reconstructions')], tmp_path, other)
    assert other.num_decoded == COUNT
    assert len([*tmp_path.glob('reconstructions_averages_*.npz')]) == 2


def test_images_are_loaded_in_batches_of_all_processes(tmp_path, monkeypatch):
    """The loader refuses a batch that is no multiple of their number."""
    sizes = []
    monkeypatch.setattr(references, 'rank_and_world_size', lambda: (0, 6))
    monkeypatch.setattr(references, 'make_reference', lambda *given, loading: sizes.append(loading))
    measured_references([metric()], tmp_path, draw(Lossy()), batch_size=10)
    assert sizes == [(60, 0)]


def test_files_of_images_and_of_another_autoencoder_are_refused(tmp_path):
    autoencoder, images, own = Lossy(), tmp_path / 'images.npz', tmp_path / 'own.npz'
    make_reference(Noise(), Averages(), images)
    assert make_reference(Noise(), Averages(), own, autoencoder=autoencoder) == 0
    assert not read_reference(own).has_images
    given = {**metric(against='reconstructions'), 'reference': str(images)}
    message = 'images.npz has features of images; .* give a data set'
    with pytest.raises(ValueError, match=message):
        GenerationMetric.requirements(given)
    with pytest.raises(ValueError, match=message):
        built([given], tmp_path, autoencoder)
    with pytest.raises(ValueError, match='own.npz has features of reconstructions by the autoencoder .*expected those'):
        GenerationMetric(Averages(), str(own))
    given['reference'] = str(own)
    assert GenerationMetric.requirements(given) == []
    assert built([given], tmp_path, autoencoder)[0].reference.num_images == COUNT
    autoencoder.weight.data += 0.1
    with pytest.raises(ValueError, match='own.npz is of reconstructions by the autoencoder .*give the data set'):
        built([given], tmp_path, autoencoder)


def test_only_frechet_distances_are_measured_against_reconstructions(tmp_path):
    given = metric(against='reconstructions')
    del given['metrics']
    (every,) = built([given], tmp_path, Exact())
    assert every.metrics == ('fd', 'sfd')
    assert list(measure(every, Noise(seed=1).images)) == ['fd_averages/reconstructions', 'sfd_averages/reconstructions']
    with pytest.raises(
        ValueError, match="'pr': only Fréchet distances .* against reconstructions; expected any of fd, sfd"
    ):
        built([{**given, 'metrics': ('fd', 'pr')}], tmp_path, Exact())
    with pytest.raises(ValueError, match='fd_averages/reconstructions: 12 images, but it needs 13'):
        every.check(12)
    with pytest.raises(ValueError, match=r"against must be 'images' or 'reconstructions', got 'latents'"):
        built([{**given, 'against': 'latents'}], tmp_path, Exact())


def test_latents_of_the_reference_are_posterior_means_in_generator_units(tmp_path):
    means = lossy_in_numpy(Noise().images)[0]
    latents = torch.randn(60, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    (evaluator,) = built([latent_metric(min_images=2)], tmp_path, Lossy())
    given = measure(evaluator, torch.zeros(60, 3, SIZE, SIZE, dtype=torch.uint8), latents)
    wanted, drawn = (means - 0.1) * 2, latents.double().numpy()
    cells = [np.moveaxis(values, 1, -1).reshape(-1, 3) for values in (drawn, wanted)]
    assert given['latent_fd/cells'] == pytest.approx(distance(*cells), rel=1e-5)
    whole = [values.reshape(len(values), -1) for values in (drawn, wanted)]
    # 48 values from 40 images: `sqrtm` of a singular product is right to about six digits
    assert given['latent_fd'] == pytest.approx(distance(*whole), rel=1e-4)
    assert evaluator.reference.num_images == COUNT
    assert evaluator.card()['autoencoder']['scale'] == [2.0] * 3
    assert not [*tmp_path.iterdir()]


def test_latents_that_cannot_be_compared_are_refused(tmp_path):
    with pytest.raises(ValueError, match='compares continuous latents, and SimpleNamespace makes codes; leave it out'):
        built([metric(), latent_metric()], tmp_path, Lossy(), learns='codes')
    assert not [*tmp_path.iterdir()]  # said before anything is measured
    with pytest.raises(ValueError, match=r'got latents of 3 x 4 x 4; expected 3 x 8 x 8, the generator'):
        built([latent_metric()], tmp_path, Lossy(), side=8)
    with pytest.raises(ValueError, match=f'reference of latent_fd: {COUNT} images, but it needs 49 or more'):
        built([latent_metric()], tmp_path, Lossy())
    with pytest.raises(ValueError, match="subset of .'full', 'cells'.*got .'mean'"):
        built([latent_metric(features=('mean',))], tmp_path, Lossy())
