"""REPA's loss: denoising, and the angle between projected tokens and features."""

import pytest
import torch
from torch.nn import functional as F

from eqzoo.generators import REPA, AlignedTransformer, DiffusionTransformer, Interpolant, SiT
from eqzoo.randomness import SampleStreams

SHAPE = dict(size=(2, 32, 2), latent_channels=4, latent_size=4, num_classes=5)


class Encoder:
    """Four tokens of six values, of the mean of an image."""

    num_features = 6

    def __init__(self):
        self.seen = []

    def __call__(self, images):
        self.seen.append(images)
        generator = torch.Generator().manual_seed(int(images.sum()) % 1000)
        return torch.randn(len(images), 4, 6, generator=generator)


def network(**options):
    torch.manual_seed(0)
    made = AlignedTransformer(**SHAPE, **{'feature_dims': (6,), 'tap': 1, 'projector_width': 16, **options})
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return dict(
        latents=torch.randn(3, 4, 4, 4, generator=generator),
        labels=torch.tensor([0, 4, 2]),
        images=torch.randint(256, (3, 3, 8, 8), generator=generator, dtype=torch.uint8),
    )


def streams():
    return SampleStreams(0, torch.arange(3))


def test_the_loss_is_denoising_less_a_share_of_the_cosine(batch):
    encoder = Encoder()
    model = REPA(network(), Interpolant(), encoder=encoder, weight=0.25, p_unconditional=0.0)
    found = model.loss(batch, streams())
    # the same noise and time as SiT's
    between = model.interpolate(batch, streams())
    output, (projected,) = model.network.forward_with_features(between.noisy, between.times, between.labels)
    denoising = (output - (between.noise - batch['latents'])).square().mean()
    features = encoder(batch['images'])
    cosine = (F.normalize(projected, dim=2) * F.normalize(features, dim=2)).sum(dim=2).mean()
    torch.testing.assert_close(found['denoising'], denoising)
    torch.testing.assert_close(found['alignment'], -cosine)
    torch.testing.assert_close(found['loss'], denoising - 0.25 * cosine)
    plain = SiT(model.network, Interpolant(), p_unconditional=0.0).loss(batch, streams())
    torch.testing.assert_close(plain['loss'], denoising)


def test_stored_features_need_no_encoder_and_are_preferred(batch):
    features = Encoder()(batch['images'])
    without = REPA(network(), Interpolant()).loss(dict(batch, features=features), streams())
    encoder = Encoder()
    with_both = REPA(network(), Interpolant(), encoder=encoder).loss(dict(batch, features=features), streams())
    of_images = REPA(network(), Interpolant(), encoder=Encoder()).loss(batch, streams())
    assert not encoder.seen
    assert with_both == without
    torch.testing.assert_close(of_images['loss'], without['loss'])


def test_features_are_of_the_tapped_block(batch):
    taps = [
        REPA(network(tap=tap), Interpolant(), encoder=Encoder()).loss(batch, streams())['alignment'] for tap in (1, 2)
    ]
    assert abs(taps[0] - taps[1]) > 1e-3


def test_the_encoder_is_no_part_of_the_model():
    encoder = torch.nn.Linear(2, 6)
    encoder.num_features = 6
    model = REPA(network(), Interpolant(), encoder=encoder)
    assert set(model.state_dict()) == {f'network.{name}' for name in model.network.state_dict()}
    assert model.encoder is encoder


def test_what_does_not_fit_is_refused(batch):
    with pytest.raises(ValueError, match=r'projects to features of \(5,\); accepted is one encoder, here of 6; set'):
        REPA(network(feature_dims=(5,)), Interpolant(), encoder=Encoder())
    with pytest.raises(ValueError, match=r'projects to features of \(6, 7\); accepted is one encoder'):
        REPA(network(feature_dims=(6, 7)), Interpolant())
    with pytest.raises(ValueError, match='REPA.network: got DiffusionTransformer; accepted is AlignedTransformer'):
        REPA(DiffusionTransformer(**SHAPE), Interpolant())
    with pytest.raises(ValueError, match='REPA.weight must not be negative, got -1'):
        REPA(network(), Interpolant(), weight=-1)
    with pytest.raises(ValueError, match='the batch has no features, and there is no encoder; write features'):
        REPA(network(), Interpolant()).loss(batch, streams())
    del batch['images']
    with pytest.raises(ValueError, match='there is an encoder, but the latents come without images'):
        REPA(network(), Interpolant(), encoder=Encoder()).loss(batch, streams())
    with pytest.raises(
        ValueError, match='features of 9 tokens and 6 values; the network has 4 tokens and projects to 6'
    ):
        REPA(network(), Interpolant()).loss(dict(batch, features=torch.randn(3, 9, 6)), streams())
