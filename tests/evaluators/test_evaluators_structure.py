"""Spatial structure: all pairs of cells counted by NumPy, known fields, units, sizes of images, regions."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eqzoo.evaluators import AutoencoderView, SpatialStructure
from eqzoo.evaluators.structure import region_similarity


class Cells(nn.Module):
    """Latents are those of the images' numbers; images only have a size."""

    def __init__(self, latents):
        super().__init__()
        self.all, self.seen = latents, 0

    def latents(self, images):
        self.seen += len(images)
        return self.all[self.seen - len(images) : self.seen]


def measure(latents, size=(64, 64), batch=8, **arguments):
    evaluator, encoder = SpatialStructure(**arguments), Cells(latents)
    for numbers in torch.arange(len(latents)).split(batch):
        evaluator.process(AutoencoderView(encoder, torch.zeros(len(numbers), 3, *size), numbers))
    return evaluator.evaluate(len(latents)), evaluator


def noise(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed)).double()


def smooth(count=10, channels=4, side=8, cells=3):
    return F.interpolate(noise(count, channels, cells, cells), side, mode='bicubic')


def all_pairs(latents, size, center=True):
    """Cosines (B, T, T) and distances (T, T), in shorter sides, of all pairs of cells."""
    x = latents.numpy()
    count, channels, height, width = x.shape
    x = x.reshape(count, channels, -1)
    x = x - x.mean(axis=2, keepdims=True) if center else x
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    rows, columns = np.divmod(np.arange(height * width), width)
    places = np.stack([(rows + 0.5) * size[0] / height, (columns + 0.5) * size[1] / width])
    distance = np.linalg.norm(places[:, :, None] - places[:, None], axis=0) / min(size)
    return np.einsum('bct,bcs->bts', x, x), distance


def expected(latents, size, near, far, center=True):
    cosine, distance = all_pairs(latents, size, center)
    local = cosine[:, (distance > 0) & (distance <= near)].mean(axis=1) - cosine[:, distance >= far].mean(axis=1)
    ring = 16 / 252
    middles = [(number + 0.5) * ring for number in range(30) if 24 / 252 <= (number + 0.5) * ring <= 96 / 252]
    found = []
    for middle in middles:
        inside = (distance >= middle - ring / 2) & (distance < middle + ring / 2)
        if inside.any():
            found.append((middle, cosine[:, inside].mean(axis=1)))
    slopes = np.polyfit([middle for middle, _ in found], np.stack([value for _, value in found]), 1)[0]
    return local, -slopes


@pytest.mark.parametrize(
    ('grid', 'size', 'near'),
    [
        ((8, 8), (64, 64), 1 / 8),  # only the four neighbours are near
        ((18, 18), (252, 252), 24 / 252),  # as in the public implementation: diagonal neighbours too
        ((6, 10), (48, 80), 1 / 6),
        ((5, 5), (320, 320), 1 / 5),
    ],
)
@pytest.mark.parametrize('center', [True, False])
def test_values_are_those_of_all_pairs_of_cells(grid, size, near, center):
    latents = noise(5, 3, *grid).cumsum(dim=2).cumsum(dim=3)
    found, _ = measure(latents, size, batch=2, center=center)
    suffix = '' if center else '_uncentred'
    for name, each in zip(('lds', 'cds'), expected(latents, size, near + 1e-9, 96 / 252, center), strict=True):
        assert found[name + suffix] == pytest.approx(each.mean(), rel=1e-6)
        assert found[f'{name}{suffix}_std'] == pytest.approx(each.std(ddof=1) / math.sqrt(5), rel=1e-6)


def test_smooth_latents_have_more_structure_than_noise():
    white, field = measure(noise(50, 4, 8, 8))[0], measure(smooth(50))[0]
    # of T cells minus their mean each pair's cosine is -1 / (T - 1), near or far
    assert white['lds'] == pytest.approx(0, abs=4 * white['lds_std'])
    assert white['cds'] == pytest.approx(0, abs=4 * white['cds_std'])
    assert field['lds'] > 0.8
    assert field['cds'] > 1.5


def test_one_field_on_finer_cells_has_nearly_the_same_slope():
    coarse = smooth(50, side=16)
    fine = F.interpolate(coarse, scale_factor=2.0, mode='bicubic')
    assert measure(fine)[0]['cds'] == pytest.approx(measure(coarse)[0]['cds'], rel=0.1)
    # the size of the images does not count, only their shape does
    assert measure(coarse, (512, 512))[0] == measure(coarse, (64, 64))[0]


def test_an_offset_makes_all_cells_similar_unless_it_is_subtracted():
    latents = smooth()
    moved = 2 * latents + 30
    assert measure(moved)[0] == pytest.approx(measure(latents)[0], rel=1e-6)
    assert measure(moved, center=False)[0]['lds_uncentred'] < 0.05 < measure(latents, center=False)[0]['lds_uncentred']


def test_distances_are_arguments():
    latents = smooth()
    found, evaluator = measure(latents, near=0.2, far=0.6)
    local, _ = expected(latents, (64, 64), 0.2, 0.6)
    assert found['lds'] == pytest.approx(local.mean(), rel=1e-6)
    assert (evaluator.card()['near'], evaluator.card()['far']) == (0.2, 0.6)
    assert found['cds'] != measure(latents)[0]['cds']
    with pytest.raises(ValueError, match='SpatialStructure: near and far must be shares .*, got 0.5 and 0.2'):
        SpatialStructure(near=0.5, far=0.2)


def test_images_that_do_not_vary_are_left_out():
    latents = smooth(10)
    flat = torch.cat([latents[:4], torch.full((3, 4, 8, 8), 0.1).double(), latents[4:]])
    assert measure(flat)[0] == pytest.approx(measure(latents)[0], rel=1e-9)
    assert all(math.isnan(value) for value in measure(torch.full((5, 4, 8, 8), 0.1))[0].values())


def test_few_cells_have_no_slope_or_nothing():
    two, one = measure(noise(5, 3, 2, 2))[0], measure(noise(5, 3, 1, 1))[0]
    assert math.isfinite(two['lds'])  # neighbours against diagonals
    assert math.isnan(two['cds'])
    assert math.isnan(one['lds'])


def test_regions_are_compared_as_by_hand():
    """Foreground cells to near foreground, minus to far background; a mean over cells that have both."""
    latents, size = noise(3, 4, 6, 6).cumsum(dim=2), (48, 48)
    masks = torch.zeros(3, 48, 48)
    masks[0, 8:32, 8:24] = 255
    masks[1, :, 40:] = 1
    masks[2] = 1  # no background
    found = region_similarity(latents, masks, size)
    cosine, distance = all_pairs(latents, size)
    for image in (0, 1):
        foreground = masks[image, 4::8, 4::8].flatten().numpy() > 0
        values = []
        for cell in np.flatnonzero(foreground):
            near = foreground & (distance[cell] > 0) & (distance[cell] <= 1 / 6 + 1e-9)
            far = ~foreground & (distance[cell] >= 96 / 252)
            if near.any() and far.any():
                values.append(cosine[image, cell, near].mean() - cosine[image, cell, far].mean())
        assert found[image].item() == pytest.approx(np.mean(values), rel=1e-9)
    assert math.isnan(found[2])
    assert torch.equal(region_similarity(latents, masks.bool(), size)[:2], found[:2])


def test_a_foreground_of_its_own_kind_has_a_high_similarity():
    masks = torch.zeros(1, 64, 64)
    masks[:, 16:40, 16:40] = 1
    inside = F.interpolate(masks[None], 8)[0]
    kinds = torch.stack([inside, 1 - inside], dim=1).double()
    assert region_similarity(kinds, masks, (64, 64)).item() == pytest.approx(2, abs=1e-6)  # 1 minus -1
    assert region_similarity(kinds, masks, (64, 64), center=False).item() == pytest.approx(1)
    with pytest.raises(ValueError, match=r'region_similarity: masks \(1, 1, 64, 64\); expected \(1, H, W\)'):
        region_similarity(kinds, masks[None], (64, 64))
