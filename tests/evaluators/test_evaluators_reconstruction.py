"""PSNR, SSIM and perceptual distances: the stated protocols, against other implementations."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchmetrics.functional.image import structural_similarity_index_measure as torchmetrics_ssim
from torchmetrics.image import PeakSignalNoiseRatio

from eqzoo.evaluators import AutoencoderView, PerceptualMetric, ReconstructionMetric
from eqzoo.files import sha256_of
from eqzoo.images import to_uint8
from eqzoo.losses import LPIPS
from eqzoo.randomness import SampleNoise
from eqzoo.vision.weights import KnownFile


class Identity(nn.Module):
    def normalize(self, z):
        return z

    denormalize = normalize


class Noisy(nn.Module):
    """Encodes nothing, decodes with a fixed error for each image."""

    def __init__(self, error):
        super().__init__()
        self.error, self.normalization = error, Identity()

    def latents(self, images):
        return images

    def decode(self, z):
        return z + self.error[: len(z)]

    def encode(self, images):
        return SimpleNamespace(mean=images, std=torch.full_like(images, 0.1))


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def measure(images, reconstructions, batch=4, **arguments):
    metric = ReconstructionMetric(**arguments)
    error = reconstructions - images
    numbers = torch.arange(len(images))
    for x, e, number in zip(images.split(batch), error.split(batch), numbers.split(batch), strict=True):
        metric.process(AutoencoderView(Noisy(e), x, number))
    return metric.evaluate(len(images))


@pytest.fixture
def pair():
    images = randn(10, 3, 32, 40).mul(0.5).clamp(-1, 1)
    return images, images + randn(10, 3, 32, 40, seed=1) * torch.linspace(0.02, 0.4, 10)[:, None, None, None]


def test_psnr_is_per_image_on_eight_bits(pair):
    x, y = (to_uint8(each).double() for each in pair)
    reference = PeakSignalNoiseRatio(data_range=255.0, dim=(1, 2, 3))
    assert measure(*pair)['psnr'] == pytest.approx(reference(y, x).item(), abs=1e-4)
    pooled = PeakSignalNoiseRatio(data_range=255.0)(y, x).item()
    assert abs(measure(*pair)['psnr'] - pooled) > 1  # what pooling the error over the set would give


def test_ssim_is_the_formula_with_a_gaussian_window(pair):
    """Wang et al. 2004, by separable convolution; reflected borders count, as in torchmetrics."""
    x, y = (to_uint8(each).double() for each in pair)
    positions = torch.arange(11, dtype=torch.float64) - 5
    window = torch.exp(-(positions**2) / (2 * 1.5**2))
    window /= window.sum()

    def blur(image):
        padded = torch.nn.functional.pad(image, (5, 5, 5, 5), mode='reflect')
        kernel = (window[:, None] * window[None, :]).expand(3, 1, 11, 11)
        return torch.nn.functional.conv2d(padded, kernel, groups=3)

    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    ssim = ((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert measure(*pair)['ssim'] == pytest.approx(ssim.mean().item(), abs=1e-6)


def test_identical_images_have_100_db_and_an_ssim_of_1(pair):
    result = measure(pair[0], pair[0])
    assert result == {'psnr': pytest.approx(100), 'ssim': pytest.approx(1)}


def test_one_grey_level_is_48_db():
    images = torch.zeros(1, 3, 16, 16)
    assert measure(images, images + 2 / 255)['psnr'] == pytest.approx(20 * torch.tensor(255.0).log10().item(), abs=1e-4)


def test_batches_change_nothing(pair):
    assert measure(*pair, batch=10) == pytest.approx(measure(*pair, batch=3), rel=1e-12)


def test_rounding_is_to_the_nearest_and_clamps():
    values = torch.tensor([-2.0, -1.0, -1 + 0.9 / 127.5, 0.0, 1.0, 3.0])
    assert to_uint8(values).tolist() == [0, 0, 1, 128, 255, 255]


def test_small_images_and_unknown_protocols_are_refused():
    small = torch.zeros(1, 3, 8, 16)
    with pytest.raises(ValueError, match=r'images of \(8, 16\) pixels; SSIM needs at least 11'):
        measure(small, small)
    with pytest.raises(
        ValueError, match=r"ReconstructionMetric.protocol must be 'uint8', 'eqvae' or 'lightningdit', got 'eq-vae'"
    ):
        ReconstructionMetric('eq-vae')
    with pytest.raises(ValueError, match=r"ReconstructionMetric.average must be 'image' or 'global', got 'mean'"):
        ReconstructionMetric(average='mean')
    with pytest.raises(ValueError, match="ReconstructionMetric.latent must be 'mean', 'sample' or None, got 'mode'"):
        ReconstructionMetric(latent='mode')


def test_global_psnr_is_torchmetrics_default(pair):
    x, y = (to_uint8(each).double() for each in pair)
    reference = PeakSignalNoiseRatio(data_range=255.0)(y, x).item()
    assert measure(*pair, average='global')['psnr_global'] == pytest.approx(reference, abs=1e-4)


def test_ssim_of_eqvae_has_each_images_own_range(pair):
    """Torchmetrics with `data_range=None` and batches of one, on what the decoder gives."""
    x, y = (each.double() for each in pair)
    wanted = torch.stack([torchmetrics_ssim(y[i : i + 1], x[i : i + 1]) for i in range(len(x))]).mean().item()
    assert measure(*pair, protocol='eqvae', latent='mean')['ssim_eqvae_mean'] == pytest.approx(wanted, abs=1e-6)
    together = torchmetrics_ssim(y, x).item()  # the batch's range instead: another number
    assert abs(wanted - together) > 1e-3


def test_ssim_of_lightningdit_clamps(pair):
    x, y = (each.double() for each in pair)
    wanted = torchmetrics_ssim(y, x, data_range=(-1.0, 1.0)).item()
    given = measure(*pair, protocol='lightningdit', latent='mean')
    assert given['ssim_lightningdit_mean'] == pytest.approx(wanted, abs=1e-6)


def test_a_sample_belongs_to_the_images_number(pair):
    x, y = pair
    noise = SampleNoise(0, torch.arange(len(x)))(x)
    wanted = measure(x, y + 0.1 * noise)
    given = measure(x, y, latent='sample', batch=3)
    assert given == {f'{name}_sample': pytest.approx(value, rel=1e-6) for name, value in wanted.items()}
    assert list(measure(x, y, protocol='eqvae')) == ['psnr_sample', 'ssim_eqvae']
    assert measure(x, y, protocol='eqvae')['psnr_sample'] == given['psnr_sample']


def test_an_image_that_is_not_finite_is_named(pair):
    x, y = (each.clone() for each in pair)
    y[6, 1, 3, 3] = float('nan')
    with pytest.raises(ValueError, match='NaN or infinite values in the reconstruction of image 6'):
        measure(x, y)


class Differences:
    """Mean absolute difference in the place of a network."""

    key = 'difference'

    def __call__(self, reconstruction, target):
        return (reconstruction - target).abs().mean(dim=(1, 2, 3))

    def card(self):
        return {'network': 'none'}


def perceptual(distance, images, reconstruction, **arguments):
    metric = PerceptualMetric(distance, **arguments)
    for x, y in zip(images.split(2), reconstruction.split(2), strict=True):
        view = AutoencoderView(None, x)
        view.reconstruction = y
        metric.process(view)
    return metric.evaluate(len(images))


IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_mean_over_images_of_uneven_batches():
    error = torch.linspace(0.1, 0.5, 5)[:, None, None, None]
    given = perceptual(Differences(), IMAGES, IMAGES + error, values='float')
    assert given == {'difference_float': pytest.approx(0.3, rel=1e-6)}


def test_eight_bits_are_rounded_and_clamped():
    images = torch.full((1, 3, 16, 16), 1.0)
    assert perceptual(Differences(), images, images + 5)['difference'] == 0
    assert perceptual(Differences(), images, images - 2.4 / 127.5)['difference'] == pytest.approx(2 / 127.5)


def test_lpips_values_are_the_packages():
    distance = LPIPS(weights='random')
    reconstruction = IMAGES.flip(3)
    wanted = distance(reconstruction, IMAGES).double().mean().item()
    assert perceptual(distance, IMAGES, reconstruction, values='float') == {
        'random_vgg_float': pytest.approx(wanted, rel=1e-6)
    }


def test_only_the_published_trunks_are_called_lpips(tmp_path, monkeypatch):
    assert [LPIPS(net, weights='random').key for net in ('vgg', 'alex')] == ['random_vgg', 'random_alex']
    assert LPIPS('alex', weights='random').card()['trunk_sha256'] == 'random weights'
    network = LPIPS('alex', weights='random')._network.net
    layers = [layer for i in range(1, 6) for layer in getattr(network, f'slice{i}').state_dict().items()]
    torch.save({f'features.{name}': tensor for name, tensor in layers}, tmp_path / 'trunk.pth')
    path, sha256 = tmp_path / 'trunk.pth', sha256_of(tmp_path / 'trunk.pth')
    assert LPIPS('alex', weights=str(path)).key == f'lpips_alex_{sha256[:8]}'
    published = KnownFile('the trunk', sha256, (path,), 'a command')
    monkeypatch.setattr('eqzoo.losses.perceptual._known_file', lambda net: published)
    assert [LPIPS('alex', dtype=dtype).key for dtype in ('float32', 'bfloat16')] == ['lpips_alex', 'lpips_alex_bf16']
    assert LPIPS('alex').card()['trunk_sha256'] == sha256


def test_an_unknown_kind_of_values_is_refused():
    with pytest.raises(ValueError, match="PerceptualMetric.values must be 'uint8' or 'float', got 'png'"):
        PerceptualMetric(Differences(), values='png')
