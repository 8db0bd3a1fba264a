"""R1, LeCam and DiffAug: their formulas against independent computations, and their gradients."""

import numpy as np
import pytest
import torch
from torch import nn

from eqzoo.losses import R1, AdversarialLoss, DiffAug, DiscriminatorStep, LeCam
from eqzoo.randomness import SampleStreams


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Quadratic(nn.Module):
    """D(x) = a / 2 · ‖x‖² of each of two maps, one a place: the gradients are known."""

    def __init__(self, a=3.0):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, images):
        logits = self.a / 2 * images.square().sum(1, keepdim=True)
        return [logits, logits[..., :1, :1]]


def state(model, target, *, step=0, real=None, fake=None):
    return DiscriminatorStep(model, target, real or [torch.zeros(1)], fake or [torch.zeros(1)], step)


def test_r1_of_a_known_gradient():
    """∇D = a · x · (1/hw + [first place]) / 2, so γ/2 · E‖∇D‖² = γ/2 · a² · mean of the sums of (x · factor)²."""
    model, images = Quadratic(), randn(4, 3, 2, 5)
    factor = torch.full((2, 5), 0.1)
    factor[0, 0] += 1
    expected = 0.5 * 7 * 9 * (images * factor / 2).square().flatten(1).sum(1).mean()
    value = R1(7)(state(model, images))
    torch.testing.assert_close(value, expected)
    value.backward()  # of a², twice the value over a
    torch.testing.assert_close(model.a.grad, 2 * expected / 3)


def test_r1_against_finite_differences_and_second_derivatives():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 1, 1)).double()
    images = randn(2, 3, 4, 4).double()

    def penalty():
        model.zero_grad()
        x = images.clone()
        gradient = torch.zeros_like(x).flatten()
        for index in range(gradient.numel()):
            moved = torch.zeros_like(gradient)
            moved[index] = 1e-5
            moved = moved.view_as(x)
            high, low = (model(x + sign * moved).mean(dim=(1, 2, 3)).sum() for sign in (1, -1))
            gradient[index] = (high - low) / 2e-5
        return 5 * gradient.view_as(x).square().flatten(1).sum(1).mean()

    def ours():
        # R1 itself works in float32
        model.float()
        value = R1(10.0)(state(lambda x: [model(x)], images.float()))
        model.zero_grad()
        value.backward()
        gradient = model[0].weight.grad.double().clone()
        model.double()
        return value.double(), gradient

    value, gradient = ours()
    torch.testing.assert_close(value, penalty().detach(), rtol=1e-4, atol=0)
    with torch.no_grad():
        base = model[0].weight[1, 2, 0, 1].item()
        model[0].weight[1, 2, 0, 1] = base + 1e-3
        high = penalty()
        model[0].weight[1, 2, 0, 1] = base - 1e-3
        low = penalty()
    assert gradient[1, 2, 0, 1].item() == pytest.approx((high - low).item() / 2e-3, rel=1e-3)


def test_lazy_r1_is_the_same_on_average():
    model, images = Quadratic(), randn(2, 3, 4, 4)
    values = [R1(2.0, every=4)(state(model, images, step=step)) for step in range(8)]
    assert [value is None for value in values] == [False, True, True, True] * 2
    torch.testing.assert_close(values[4], 4 * R1(2.0)(state(model, images)))


@pytest.mark.parametrize('form', ['paper', 'released'])
def test_lecam_by_hand(form):
    """Averages of means from the first step's on, debiased; squares of differences, cut off in the release."""
    lecam = LeCam(0.5, decay=0.75, form=form)
    real = [torch.tensor([2.0, -1.0, 0.5]), torch.tensor([[0.25]])]
    fake = [torch.tensor([-1.0, 1.5, 0.0]), torch.tensor([[-2.0]])]
    assert lecam(state(None, None, real=real, fake=fake)) == 0
    history = [(1.0, -0.5), (0.5, -1.0), (2.0, 0.25)]
    for r, f in history:
        lecam.update(torch.tensor(r), torch.tensor(f))
    weights = np.array([0.25 * 0.75 ** (len(history) - 1 - n) for n in range(len(history))])
    of_real, of_fake = (weights @ np.array(history)) / weights.sum()
    cut = (lambda x: np.maximum(x, 0)) if form == 'released' else (lambda x: x)
    expected = 0.5 * sum(
        np.mean([np.mean(cut(sign * (np.asarray(each) - other)) ** 2) for each in maps])
        for maps, other, sign in ((real, of_fake, 1), (fake, of_real, -1))
    )
    value = lecam(state(None, None, real=real, fake=fake))
    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_lecams_averages_pass_over_what_is_not_finite_and_are_stored():
    lecam = LeCam(decay=0.9)
    lecam.update(torch.tensor(1.0), torch.tensor(-1.0))
    before = {name: value.clone() for name, value in lecam.state_dict().items()}
    assert set(before) == {'real', 'fake', 'total'}
    lecam.update(torch.tensor(torch.nan), torch.tensor(0.0))
    assert all(torch.equal(value, before[name]) for name, value in lecam.state_dict().items())
    lecam.update(torch.tensor(0.0), torch.tensor(0.0))
    assert lecam.real.item() == pytest.approx(0.09)


def test_lecam_pulls_logits_to_the_other_average():
    """Its gradient at a logit above the average of fakes is 2 (D - α_F) a place; below, in the release, none."""
    lecam = LeCam(1.0)
    lecam.update(torch.tensor(0.5), torch.tensor(-0.5))
    real, fake = torch.tensor([1.0, -2.0]).requires_grad_(), torch.tensor([0.0, 3.0]).requires_grad_()
    lecam(state(None, None, real=[real], fake=[fake])).backward()
    torch.testing.assert_close(real.grad, torch.tensor([1.5, 0.0]))
    torch.testing.assert_close(fake.grad, torch.tensor([-0.5, 0.0]))


def reference_colors(x, brightness, saturation, contrast):
    """The paper's three steps for one image (C, H, W), in numpy."""
    x = x + brightness - 0.5
    grey = x.mean(axis=0, keepdims=True)
    x = (x - grey) * 2 * saturation + grey
    return (x - x.mean()) * (contrast + 0.5) + x.mean()


def test_colors_against_numpy():
    images, draws = randn(3, 3, 6, 5), torch.rand(3, 7)
    out = DiffAug(['color'])(images, draws)
    for image, draw, found in zip(images, draws, out, strict=True):
        expected = reference_colors(image.double().numpy(), *draw[:3].tolist())
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)
    same = torch.full((3, 7), 0.5)
    torch.testing.assert_close(DiffAug(['color'])(images, same), images)


def test_translations_against_slices():
    images = randn(40, 2, 16, 24)
    draws = torch.rand(40, 7, generator=torch.Generator().manual_seed(3))
    draws[0, 3:5], draws[1, 3:5] = 0.0, 1 - 2**-24
    out = DiffAug(['translation'])(images, draws)
    shifts = set()
    for image, draw, found in zip(images, draws.double().numpy(), out, strict=True):
        down, right = int(np.floor(draw[3] * 5)) - 2, int(np.floor(draw[4] * 7)) - 3
        shifts.add((down, right))
        expected = np.zeros((2, 16 + 4, 24 + 6), np.float32)
        expected[:, 2 + down : 18 + down, 3 + right : 27 + right] = image
        np.testing.assert_array_equal(found.numpy(), expected[:, 2:-2, 3:-3])
    assert {down for down, _ in shifts} == set(range(-2, 3))
    assert {right for _, right in shifts} == set(range(-3, 4))
    assert {(-2, -3), (2, 3)} <= shifts


@pytest.mark.parametrize('side', [8, 9])
def test_cutouts_against_loops(side):
    images = torch.ones(60, 1, side, 6)
    draws = torch.rand(60, 7, generator=torch.Generator().manual_seed(4))
    out = DiffAug(['cutout'], cutout=0.5)(images, draws)
    for draw, found in zip(draws.double().numpy(), out, strict=True):
        expected = np.ones((side, 6))
        tall, wide = round(side * 0.5), 3
        top = int(draw[5] * (side + 1 - tall % 2)) - tall // 2
        left = int(draw[6] * (6 + 1 - wide % 2)) - wide // 2
        for row in range(max(top, 0), min(top + tall, side)):
            for column in range(max(left, 0), min(left + wide, 6)):
                expected[row, column] = 0
        np.testing.assert_array_equal(found[0].numpy(), expected)
    counts = {int(each.sum()) for each in out}
    assert min(counts) == side * 6 - round(side * 0.5) * 3
    assert max(counts) > min(counts)  # some are partly outside


def test_gradients_pass_through_all_of_it():
    images = randn(2, 3, 8, 8).double().requires_grad_()
    augment, draws = DiffAug(), torch.rand(2, 7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: augment(x, draws), images)


def test_draws_belong_to_the_sample_and_go_on():
    augment = DiffAug()
    streams = SampleStreams(0, torch.tensor([3, 9]))
    first, second = augment.sample(streams), augment.sample(streams)
    assert first.shape == (2, 7)
    assert not torch.equal(first, second)
    alone = SampleStreams(0, torch.tensor([9]))
    assert torch.equal(augment.sample(alone), first[1:])
    assert torch.equal(augment.sample(alone), second[1:])


def test_the_loss_with_all_of_it_is_the_sum_written_out():
    model, lecam = Quadratic(1.5), LeCam(0.25)
    lecam.update(torch.tensor(0.5), torch.tensor(-0.25))
    target, fake = 0.3 * randn(2, 3, 8, 8, seed=1), 0.3 * randn(2, 3, 8, 8, seed=2)
    augment = DiffAug(['translation', 'cutout'])
    loss = AdversarialLoss(model, penalties=[R1(2.0), lecam], augmentation=augment)
    value, parts = loss.discriminator_loss(fake, target, SampleStreams(0, torch.tensor([4, 5])), step=3)

    streams = SampleStreams(0, torch.tensor([4, 5]))
    real_logits = model(augment(target, augment.sample(streams)))
    fake_logits = model(augment(fake, augment.sample(streams)))
    hinge = (
        0.5
        * sum((1 - r).relu().mean() + (1 + f).relu().mean() for r, f in zip(real_logits, fake_logits, strict=True))
        / 2
    )
    seen = DiscriminatorStep(model, target, real_logits, fake_logits, 3)
    torch.testing.assert_close(value, hinge + R1(2.0)(seen) + lecam(seen))
    assert set(parts) == {'logits_real', 'logits_fake', 'r1', 'lecam'}
    torch.testing.assert_close(parts['lecam'], lecam(seen).detach())
    alone = AdversarialLoss(model, 1.0, adaptive=False, augmentation=augment)
    weighted, _ = alone.generator_loss(fake, torch.tensor(0.0), None, SampleStreams(0, torch.tensor([4, 5])))
    logits = model(augment(fake, augment.sample(SampleStreams(0, torch.tensor([4, 5])))))
    torch.testing.assert_close(weighted, -sum(each.mean() for each in logits) / 2)
