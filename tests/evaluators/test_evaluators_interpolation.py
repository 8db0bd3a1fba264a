"""The distance of interpolations between neighbouring latents: the arc, the neighbours, and spaces with holes."""

import pytest
import torch
from averages import Averages
from pixels import Pixels, faces, measure
from torch.utils.data import Dataset

from eqzoo.data import Shapes
from eqzoo.evaluators import InterpolationFrechet
from eqzoo.evaluators.gaussian import FeatureMoments, frechet_distance
from eqzoo.evaluators.interpolation import draw_neighbors, slerp
from eqzoo.images import to_float, to_uint8
from eqzoo.randomness import seeded


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


class Stretched(Pixels):
    """The same autoencoder, whose generators see latents seven times as large."""

    def __init__(self):
        super().__init__()
        self.normalization.denormalize = lambda z: z / 7

    def latents(self, images):
        return 7 * super().latents(images)


def test_distances_are_between_raw_latents():
    """The drawn neighbours do not depend on the units of the generator."""
    images = faces(60)
    arguments = dict(min_images=2, reference=Faces(50))
    plain = measure(InterpolationFrechet(Averages(), **arguments), Pixels(), images)['ifd_averages']
    found = measure(InterpolationFrechet(Averages(), **arguments), Stretched(), images)['ifd_averages']
    assert found == pytest.approx(plain, rel=1e-5)


class Faces(Dataset):
    """A data set of `faces`, one of them unreadable on demand."""

    def __init__(self, count, seed=1, *, broken=False):
        self.images, self.broken = to_uint8(faces(count, seed)), broken

    def __len__(self):
        return len(self.images)

    def __getitem__(self, key):
        index, draw = key
        if self.broken and index == 3:
            return dict(unreadable='3', index=index, draw=draw)
        return dict(image=self.images[index], label=0, index=index, draw=draw)

    def identity(self):
        return dict(kind='Faces', num_images=len(self))


@pytest.mark.parametrize('broken', [False, True])
def test_neighbours_may_be_from_another_set(broken):
    """All by plain formulas: latents of both sets, one of three neighbours by cosine, the middle, its features."""
    images, other = faces(40), Faces(50, broken=broken)
    metric = InterpolationFrechet(Averages(), min_images=2, neighbors=3, reference=other)
    found = measure(metric, Pixels(), images, batch=7)['ifd_averages']
    readable = to_float(other.images)[[number for number in range(50) if not (broken and number == 3)]]
    points, others = images.flatten(1).double(), readable.flatten(1).double()
    cosine = torch.nn.functional.cosine_similarity(points[:, None], others[None], dim=2)
    places = cosine.topk(3, dim=1).indices
    errors = (points[:, None] - others[places]).square().mean(dim=2)
    drawn = torch.multinomial((-errors).softmax(dim=1).float(), 1, generator=seeded(2))
    partners = readable[places.gather(1, drawn)[:, 0]]
    moments = [FeatureMoments(12), FeatureMoments(12)]
    for each, pixels in zip(moments, (slerp(images, partners, 0.5), images), strict=True):
        each.add(Averages()(to_uint8(pixels)).pooled)
    assert found == pytest.approx(frechet_distance(*moments), rel=1e-5)
    assert (
        found != measure(InterpolationFrechet(Averages(), min_images=2, neighbors=3), Pixels(), images)['ifd_averages']
    )
    card = metric.card()
    assert card['neighbors'] == 'one of 3 by cosine, within another set'
    assert card['neighbors_from'] == {'kind': 'Faces', 'num_images': 50, 'encoded': 49 if broken else 50}


def test_only_max_reference_images_are_encoded_and_workers_change_nothing():
    images = faces(30)
    arguments = dict(min_images=2, neighbors=2, reference=Faces(50))
    metrics = [
        InterpolationFrechet(Averages(), **arguments),
        InterpolationFrechet(Averages(), **arguments, max_reference=10),
        InterpolationFrechet(Averages(), **arguments, max_reference=10, num_workers=1),
    ]
    every, few, again = (measure(metric, Pixels(), images)['ifd_averages'] for metric in metrics)
    assert few != every
    assert few == again
    assert metrics[1].card()['neighbors_from']['encoded'] == 10


def test_a_batch_of_the_reference_without_any_readable_image_is_left_out():
    images = faces(9)
    found = [
        measure(
            InterpolationFrechet(Averages(), min_images=2, neighbors=2, reference=Faces(12, broken=broken)),
            Pixels(),
            images,
            batch=1,
        )
        for broken in (False, True)
    ]
    assert all(each['ifd_averages'] > 0 for each in found)
    assert found[0] != found[1]


def test_a_set_itself_as_its_reference_has_each_image_as_its_own_neighbour():
    images = faces(30)
    same = Faces(1)
    same.images = to_uint8(images)
    metric = InterpolationFrechet(Averages(), min_images=2, neighbors=1, reference=same)
    assert measure(metric, Pixels(), to_float(same.images)) == {'ifd_averages': pytest.approx(0, abs=1e-3)}


def test_references_that_cannot_serve_are_refused():
    with pytest.raises(ValueError, match="reference must be a data set of images, .*, got 'train.npz'; for neighbours"):
        InterpolationFrechet(Averages(), reference='train.npz')
    with pytest.raises(ValueError, match='reference: 9 images, but one of 10 neighbours is drawn; use more images'):
        InterpolationFrechet(Averages(), reference=Faces(9))
    with pytest.raises(ValueError, match='reference: 5 images, but one of 10 .* a larger max_reference'):
        InterpolationFrechet(Averages(), reference=Faces(90), max_reference=5)
    larger = InterpolationFrechet(Averages(), min_images=2, neighbors=2, reference=Shapes(8, 32))
    with pytest.raises(
        ValueError, match=r'reference: latents of \(3, 32, 32\), those .* are \(3, 16, 16\); use images'
    ):
        measure(larger, Pixels(), faces(8))
