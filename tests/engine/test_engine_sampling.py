"""Sample n depends on the seed and on n alone."""

import pytest
import torch
from PIL import Image

from eqzoo.autoencoders import KLAutoencoder, VQAutoencoder
from eqzoo.engine.evaluation import SampleBatches
from eqzoo.engine.sampling import ImageSampler, Inpainting, batches, check_sampled_labels, label_of
from eqzoo.randomness import SampleStreams
from eqzoo.registry import build

CLASSES = 4


def autoencoder(channels=3):
    torch.manual_seed(0)
    return KLAutoencoder(channels, (8, 8), layers_per_block=1, norm_num_groups=4, scale=0.5, shift=0.1).eval()


def generator():
    torch.manual_seed(1)
    network = dict(type='DiffusionTransformer', size=(1, 16, 2), latent_channels=3, latent_size=4, num_classes=CLASSES)
    built = build(dict(type='DiT', network=network, process=dict(type='GaussianDiffusion'))).eval()
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return built


class FirstNoise:
    """A sampler that returns each sample's noise, moved by its class."""

    def check(self, generator):
        pass

    def __call__(self, generator, labels, streams):
        latents = torch.zeros(len(labels), *generator.latent_shape)
        return streams.normal(latents) + labels.view(-1, 1, 1, 1)


def test_labels_follow_from_seed_and_number():
    assert [label_of(number, 'balanced', 3, 0) for number in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert [label_of(number, [5, 2], 9, 0) for number in range(3)] == [5, 2, 5]
    drawn = [label_of(number, 'random', CLASSES, 0) for number in range(400)]
    assert [drawn.count(label) for label in range(CLASSES)] == pytest.approx([100] * CLASSES, abs=30)
    assert drawn[:50] == [label_of(number, 'random', CLASSES, 0) for number in range(50)]
    assert drawn[:50] != [label_of(number, 'random', CLASSES, 1) for number in range(50)]


def test_images_are_the_decoded_denormalised_latents():
    draw = ImageSampler(generator(), autoencoder(), FirstNoise(), labels='balanced', seed=3)
    noise = SampleStreams(3, torch.tensor([5, 2])).normal(torch.zeros(2, 3, 4, 4))
    latents = (noise + torch.tensor([1.0, 2.0]).view(-1, 1, 1, 1)) / 0.5 + 0.1
    images = autoencoder().decode(latents)
    assert torch.equal(draw([5, 2]), (127.5 * images + 128).clamp(0, 255).to(torch.uint8))


def test_batches_have_latents_where_they_are_wanted():
    """In generator units and of the images, also where these are read from files instead of drawn."""

    class Files:
        """Has the images of samples 1 and 4, all grey."""

        def __init__(self):
            self.written = []

        def numbers(self):
            return {1, 4}

        def read(self, numbers):
            return torch.full((len(numbers), 3, 8, 8), 7, dtype=torch.uint8)

        def write(self, numbers, images):
            self.written += numbers

    draw = ImageSampler(generator(), autoencoder(), FirstNoise(), labels='balanced', seed=3)
    wanted = SampleStreams(3, torch.arange(6)).normal(torch.zeros(6, 3, 4, 4))
    wanted += (torch.arange(6) % CLASSES).view(-1, 1, 1, 1)
    files = Files()
    given = dict(batch_size=4, identity={})
    batches_of = {
        name: list(SampleBatches(draw, 6, **given, **more))
        for name, more in dict(none={}, all=dict(with_latents=True), read=dict(with_latents=True, files=files)).items()
    }
    assert [batch['latents'] for batch in batches_of['none']] == [None, None]
    for name in ('all', 'read'):
        assert torch.equal(torch.cat([batch['latents'] for batch in batches_of[name]]), wanted)
    images = {name: torch.cat([batch['images'] for batch in each]) for name, each in batches_of.items()}
    assert torch.equal(images['none'], images['all'])
    assert (images['read'][[1, 4]] == 7).all()
    assert torch.equal(images['read'][[0, 2, 3, 5]], images['all'][[0, 2, 3, 5]])
    assert files.written == [0, 2, 3, 5]


def test_a_sample_with_pixels_that_are_not_finite_is_named():
    """As uint8 it would look like any other image."""
    broken = autoencoder()
    whole = broken.decode
    broken.decode = lambda z: whole(z).where(z[:, :1, :1, :1] != 9, float('nan'))

    class Sampler(FirstNoise):
        def __call__(self, generator, labels, streams):
            latents = super().__call__(generator, labels, streams)
            return latents.where(labels.view(-1, 1, 1, 1) != 2, (9 - 0.1) * 0.5)

    draw = ImageSampler(generator(), broken, Sampler(), labels='balanced')
    assert draw([4, 5]).dtype == torch.uint8
    with pytest.raises(ValueError, match='NaN or infinite values in the pixels of sample 6'):
        draw([5, 6, 7])


def test_a_latent_that_is_not_finite_is_named():
    """A decoder may make finite pixels of it; and latents are scored as well."""

    class Sampler(FirstNoise):
        def __call__(self, generator, labels, streams):
            latents = super().__call__(generator, labels, streams)
            latents[labels == 2, 0, 1, 1] = float('-inf')
            return latents

    draw = ImageSampler(generator(), autoencoder(), Sampler(), labels='balanced')
    assert draw.sample([4, 5]).isfinite().all()
    with pytest.raises(ValueError, match='NaN or infinite values in the latents of sample 6'):
        draw.sample([5, 6, 7])


@pytest.mark.parametrize('sampler', ['DDPM', 'DDIM', 'ODE', 'dopri5', 'SDE', 'Confidence', 'Halton'])
def test_a_network_with_a_weight_that_is_nan_gives_no_samples(sampler):
    size = dict(size=(1, 16, 2), latent_channels=3, latent_size=4, num_classes=CLASSES)
    if sampler in ('Confidence', 'Halton'):
        network = dict(type='MaskTransformer', size=(1, 16, 2), num_codes=8, grid=4, num_classes=CLASSES)
        config = dict(type='MaskGIT', network=network)
        decoder = VQAutoencoder(3, 8, (8, 8), attention_levels=(), layers_per_block=1, norm_num_groups=4).eval()
    elif sampler in ('DDPM', 'DDIM'):
        config = dict(type='DiT', network=dict(type='DiffusionTransformer', **size), process='GaussianDiffusion')
        decoder = autoencoder()
    else:
        network = dict(type='DiffusionTransformer', learn_sigma=False, **size)
        config = dict(type='SiT', network=network, process='Interpolant')
        decoder = autoencoder()
    if 'process' in config:
        config['process'] = dict(type=config['process'])
    broken = build(config).eval()
    next(broken.network.parameters()).data[0] = float('nan')
    how = dict(type=sampler, steps=2) if sampler != 'dopri5' else dict(type='ODE')
    if sampler == 'ODE':
        how['method'] = 'euler'
    with pytest.raises((ValueError, FloatingPointError), match='NaN or infinite|values that are not finite'):
        ImageSampler(broken, decoder, build(how))([0, 1])


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_guidance_and_temperatures_are_finite(value):
    for config, name in [
        (dict(type='ClassifierFree', scale=value), 'ClassifierFree.scale'),
        (dict(type='Confidence', guidance=value), 'Confidence.guidance'),
        (dict(type='Confidence', gumbel_temperature=value), 'Confidence.gumbel_temperature'),
        (dict(type='Halton', guidance=value), 'Halton.guidance'),
        (dict(type='Halton', temperature=value), 'Halton.temperature'),
    ]:
        with pytest.raises(ValueError, match=f'{name} must be a number.*, got {value}'):
            build(config)


@pytest.mark.parametrize('sampler', [dict(type='DDPM', steps=3), dict(type='DDIM', steps=3)])
def test_samples_do_not_depend_on_how_they_are_cut(sampler):
    draw = ImageSampler(generator(), autoencoder(), build(sampler), seed=3)
    whole = draw(list(range(7))).int()
    parts = torch.cat([draw(numbers) for numbers in batches(range(7), 3)]).int()
    assert (whole - parts).abs().max() <= 1  # rounding
    again = draw([6, 1]).int()
    assert (whole[[6, 1]] - again).abs().max() <= 1
    assert (whole[0] - whole[1]).abs().max() > 20  # they are not all the same


class Counting:
    """A sampler of codes: sample after sample its label, everywhere."""

    def check(self, generator):
        pass

    def __call__(self, generator, labels, streams):
        return labels.view(-1, 1, 1).expand(-1, *generator.latent_shape)


def test_images_of_codes_are_the_decoded_codes():
    torch.manual_seed(0)
    vq = VQAutoencoder(3, 8, (8, 8), attention_levels=(), layers_per_block=1, norm_num_groups=4).eval()
    network = dict(type='MaskTransformer', size=(1, 16, 2), num_codes=8, grid=4, num_classes=CLASSES)
    maskgit = build(dict(type='MaskGIT', network=network)).eval()
    images = vq.decode_tokens(torch.tensor([1, 2]).view(2, 1, 1).expand(2, 4, 4))
    draw = ImageSampler(maskgit, vq, Counting(), labels='balanced')
    assert torch.equal(draw([5, 2]), (127.5 * images + 128).clamp(0, 255).to(torch.uint8))
    with pytest.raises(
        ValueError, match='DDPM samples from GaussianDiffusion; MaskGIT has no such process; .* for MaskGIT'
    ):
        ImageSampler(maskgit, vq, build(dict(type='DDPM', steps=2)))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r'latents of 3 channels, KLAutoencoder has 4'):
        ImageSampler(generator(), autoencoder(4), FirstNoise())
    with pytest.raises(ValueError, match=r"sampling.precision must be 'fp32' or 'bf16', got 'fp16'"):
        ImageSampler(generator(), autoencoder(), FirstNoise(), precision='fp16')
    with pytest.raises(ValueError, match=r'sampling.labels: got \[4, -1\]; .* 0 to 3'):
        ImageSampler(generator(), autoencoder(), FirstNoise(), labels=[1, 4, -1])
    with pytest.raises(ValueError, match="sampling.labels: got 'even'"):
        check_sampled_labels('even', 3)
    with pytest.raises(ValueError, match='sampling.labels: got none'):
        check_sampled_labels([], 3)
    with pytest.raises(ValueError, match='ODE'):
        ImageSampler(generator(), autoencoder(), build(dict(type='ODE', method='euler', steps=2)))


def test_inpainting_keeps_the_codes_of_images_outside_a_box(tmp_path):
    """Sample n is of image n; the box is of every cell that it touches; images are read from a folder."""
    torch.manual_seed(0)
    vq = VQAutoencoder(3, 8, (8, 8), attention_levels=(), layers_per_block=1, norm_num_groups=4).eval()
    network = dict(type='MaskTransformer', size=(1, 16, 2), num_codes=8, grid=8, num_classes=CLASSES)
    maskgit = build(dict(type='MaskGIT', network=network)).eval()
    pictures = torch.randint(256, (3, 16, 16, 3), generator=torch.Generator().manual_seed(0)).byte()
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels.numpy()).save(tmp_path / f'{number}.png')
    given = Inpainting(maskgit, vq, str(tmp_path), (0.25, 0.5, 0.6, 1.0))
    codes = vq.tokens(pictures[[2, 0]].movedim(3, 1) / 127.5 - 1)
    masked = torch.zeros(8, 8, dtype=torch.bool)
    masked[2:5, 4:] = True  # 0.6 of 8 rows reaches into the fifth
    found = given([2, 3])  # image 3 is image 0 again
    assert torch.equal(found, codes.masked_fill(masked, 8))
    for sampler in ('Confidence', 'Halton'):
        draw = ImageSampler(maskgit, vq, build(dict(type=sampler, steps=4)), labels='balanced', given=given)
        drawn = draw.sample([2, 3])
        assert torch.equal(drawn[:, ~masked], codes[:, ~masked])
        assert drawn.max() < 8
        plain = ImageSampler(maskgit, vq, build(dict(type=sampler, steps=4)), labels='balanced').sample([2, 3])
        assert not torch.equal(plain[:, ~masked], codes[:, ~masked])


def test_inpainting_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r'sampling.inpaint.box: got \(0.5, 0, 0.5, 1\); .* top < bottom'):
        Inpainting(generator(), autoencoder(), str(tmp_path), (0.5, 0, 0.5, 1))
    with pytest.raises(ValueError, match='sampling.inpaint: DiT makes latents; expected a generator of codes'):
        Inpainting(generator(), autoencoder(), str(tmp_path), (0, 0, 0.5, 1))
