"""Grids: what is where, and that components are comparable."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eqzoo.pictures import PictureRow, autoencoder_rows, draw_grid, fit_basis


class Posterior:
    def __init__(self, mean):
        self.mean = mean


class Pooling(nn.Module):
    def encode(self, images):
        return Posterior(F.avg_pool2d(images, 4))

    def decode(self, latents):
        return F.interpolate(latents, scale_factor=4.0)

    def grid(self, height, width):
        return height // 4, width // 4


def test_rows_are_targets_beside_what_the_decoder_makes_of_transformed_latents():
    images = torch.randn(2, 3, 32, 32)
    rows = {row.label: row.images for row in autoencoder_rows({'': Pooling()}, images)}
    assert list(rows) == [
        'image x',
        'reconstruction D(E(x))',
        'image rotated by 90°, τx',
        'latent rotated by 90°, decoded: D(τE(x))',
        'image at half the size, τx',
        'latent at half the size, decoded: D(τE(x))',
        'latent E(x), its PCA colours',
    ]
    assert torch.equal(rows['image rotated by 90°, τx'], images.rot90(1, (2, 3)))
    turned = rows['latent rotated by 90°, decoded: D(τE(x))']
    torch.testing.assert_close(turned, rows['reconstruction D(E(x))'].rot90(1, (2, 3)))
    halved = rows['image at half the size, τx'], rows['latent at half the size, decoded: D(τE(x))']
    assert [each.shape for each in halved] == [(2, 3, 16, 16)] * 2


class Dark(Pooling):
    def decode(self, latents):
        return super().decode(latents) - 1


def test_before_is_above_after():
    images = torch.randn(2, 3, 32, 32)
    alone = autoencoder_rows({'': Pooling()}, images)
    both = autoencoder_rows({'before training': Dark(), 'after training': Pooling()}, images)
    assert len(both) == len(alone) + 4
    labels = [row.label for row in both]
    for label, row in ((row.label, row) for row in alone if 'image' not in row.label):
        before, after = labels.index(f'{label}, before training'), labels.index(f'{label}, after training')
        assert after == before + 1
        if row.fills:  # one basis for both, whose latents are the same
            assert torch.equal(both[before].images, both[after].images)
        else:
            assert torch.equal(both[after].images, row.images)
            torch.testing.assert_close(both[before].images, row.images - 1)


def test_tiles_hold_the_images_and_smaller_ones_are_centred():
    white, small = torch.ones(1, 3, 100, 100), -torch.ones(1, 3, 50, 50)
    grid = draw_grid([PictureRow('', -white), PictureRow('', small)])
    assert grid.size == (102, 204)
    assert grid.getpixel((50, 50)) == (0, 0, 0)
    assert grid.getpixel((50, 102 + 50)) == (0, 0, 0)
    assert grid.getpixel((20, 102 + 50)) == (255, 255, 255)


def test_text_is_above_its_row_and_grows_with_the_picture():
    images = -torch.ones(2, 3, 100, 100)
    heights = {}
    for count in (2, 16):
        some = images[:1].expand(count, -1, -1, -1)
        bare, labelled = draw_grid([PictureRow('', some)]), draw_grid([PictureRow('x', some)])
        headed = draw_grid([PictureRow('x', some, heading='X')])
        heights[count] = [each.height - bare.height for each in (labelled, headed)]
        band = np.asarray(labelled.convert('L'))[: heights[count][0]]
        assert band.min() < 60  # text
        assert (band[:, -1] == 255).all()
        assert np.array_equal(np.asarray(labelled)[heights[count][0] :], np.asarray(bare))
    assert heights[2][0] == round(1.7 * 13)
    assert heights[16][0] == round(1.7 * round(0.025 * 16 * 102))
    assert all(headed > 2 * labelled for labelled, headed in heights.values())


def test_a_long_label_widens_the_picture():
    images = torch.ones(1, 3, 100, 100)
    assert draw_grid([PictureRow('a label of many words', images)]).width > 150
    assert draw_grid([PictureRow('x', images)]).width == 102


def colours_of(latents):
    return fit_basis(latents).colours(latents)


def test_components_do_not_depend_on_the_latents_signs_or_order():
    latents = torch.randn(2, 5, 8, 8) * torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5])[:, None, None]
    colours = colours_of(latents)
    assert colours.shape == (2, 3, 8, 8)
    assert colours.min() == -1
    assert colours.max() == 1
    torch.testing.assert_close(colours_of(latents[:, [4, 2, 0, 1, 3]]), colours, atol=1e-4, rtol=0)


def test_the_first_component_is_where_latents_vary_most():
    latents = torch.zeros(1, 4, 8, 8)
    latents[0, 2] = torch.arange(64.0).reshape(8, 8)
    first = colours_of(latents + 0.01 * torch.randn(1, 4, 8, 8))[0, 0].flatten()
    assert torch.corrcoef(torch.stack([first, torch.arange(64.0)]))[0, 1] > 0.99


def test_two_channels_leave_the_third_colour_black():
    assert (colours_of(torch.randn(1, 2, 8, 8))[:, 2] == -1).all()


def test_a_basis_of_two_sets_is_that_of_all_their_cells():
    first, second = torch.randn(1, 4, 6, 6), torch.randn(2, 4, 3, 3) * 5 + 2
    basis = fit_basis(first, second)
    cells = torch.cat([each.permute(0, 2, 3, 1).reshape(-1, 4) for each in (first, second)])
    torch.testing.assert_close(basis.mean, cells.mean(dim=0))
    covariance = torch.cov(cells.T)
    values, vectors = torch.linalg.eigh(covariance)
    torch.testing.assert_close((basis.directions @ vectors[:, [3, 2, 1]]).abs(), torch.eye(3), atol=1e-4, rtol=0)
    components = torch.cat([basis.components(first), basis.components(second)])
    torch.testing.assert_close(components.var(dim=0), values[[3, 2, 1]])
    torch.testing.assert_close(basis.high, components.quantile(0.99, dim=0))
    colours = basis.colours(first)
    expected = ((basis.components(first) - basis.low) / (basis.high - basis.low)).clamp(0, 1) * 2 - 1
    torch.testing.assert_close(colours.permute(0, 2, 3, 1).reshape(-1, 3), expected)


@pytest.mark.parametrize('value', [float('nan'), float('-inf')])
def test_pixels_that_are_not_finite_are_refused(value):
    images = torch.zeros(2, 3, 8, 8)
    images[1, 2, 3, 4] = value
    with pytest.raises(ValueError, match='pictures: NaN or infinite values in the pixels'):
        draw_grid([PictureRow('', images)])
