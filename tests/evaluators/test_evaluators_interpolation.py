"""The distance of interpolations between neighbouring latents: the arc, the neighbours, and spaces with holes."""

import pytest
import torch
from averages import Averages
from pixels import Pixels, faces, measure

from eqzoo.evaluators import InterpolationFrechet
from eqzoo.evaluators.interpolation import draw_neighbors, slerp
from eqzoo.images import to_uint8


def test_impossible_arguments_and_too_few_images_are_refused():
    with pytest.raises(ValueError, match='ifd_averages: 12 images, but it needs 13 or more'):
        InterpolationFrechet(Averages()).check(12)
    with pytest.raises(ValueError, match=r'InterpolationFrechet.position must be in \[0, 1\], got 2'):
        InterpolationFrechet(Averages(), position=2)


def test_interpolations_on_the_arc():
    a, b = torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 2.0], [2.0, 2.0]])
    middle = slerp(a, b, 0.5)
    assert torch.allclose(middle, torch.tensor([[2**0.5, 2**0.5], [1.5, 1.5]]))
    assert torch.allclose(slerp(a, b, 0.0), a)
    assert torch.allclose(slerp(a, b, 1.0), b, atol=1e-6)


def test_neighbours_are_near_by_the_cosine():
    angles = torch.tensor([0.0, 0.1, 1.5, 1.6, 3.1, 3.2])
    points = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor([[1.0], [9.0]] * 3)
    drawn = draw_neighbors(points, 1, generator=torch.Generator().manual_seed(0))
    assert drawn.tolist() == [1, 0, 3, 2, 5, 4]


def test_neighbours_are_drawn_by_a_softmax_of_their_distance():
    points = torch.tensor([[1.0, 0.0], [2.0, 0.1], [3.0, 0.2]])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([draw_neighbors(points, 2, generator=generator) for _ in range(1500)])
    errors = (points[1:] - points[0]).square().mean(dim=1)
    share = (drawn[:, 0] == 1).double().mean().item()
    assert share == pytest.approx((-errors).softmax(dim=0)[0].item(), abs=0.04)  # four standard deviations of 0.01
    assert not (drawn == torch.arange(3)).any()


def test_the_distance_at_position_0_is_that_of_reconstructions():
    images = faces(60)
    given = measure(InterpolationFrechet(Averages(), position=0.0), Pixels(), images)
    assert given == {'ifd_averages': pytest.approx(0, abs=1e-3)}


def test_a_space_with_holes_is_far_from_the_images():
    images = faces(60)
    smooth = measure(InterpolationFrechet(Averages()), Pixels(), images)['ifd_averages']
    rough = measure(InterpolationFrechet(Averages()), Pixels(scrambled=True), images)['ifd_averages']
    assert 0 < smooth < 0.05 * rough
    mixed = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    again = measure(InterpolationFrechet(Averages()), Pixels(), images, batch=7, numbers=mixed)['ifd_averages']
    assert again == pytest.approx(smooth, rel=1e-6)
    assert to_uint8(images).float().std() > 10  # images that do differ
