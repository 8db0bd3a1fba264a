"""The contract of every registered transform; a new one is tested without a new test."""

import inspect
import pickle

import pytest
import torch

from eqzoo.registry import TRANSFORMS, EquivarianceTransform
from eqzoo.transforms import IsotropicScale, Rotate

GRIDS = [(8, 8), (16, 16), (32, 32), (8, 16)]


def make(name):
    cls = TRANSFORMS.module_dict[name]
    parts = [IsotropicScale(), Rotate()]
    return cls(parts) if 'transforms' in inspect.signature(cls).parameters else cls()


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=TRANSFORMS.names())
def transform(request):
    return make(request.param)


def test_it_keeps_the_contract(transform):
    assert isinstance(transform, EquivarianceTransform)
    assert type(transform).__name__ in repr(transform)


@pytest.mark.parametrize('grid', GRIDS)
def test_images_and_latents_stay_aligned(transform, grid):
    """This includes `cases`, which an evaluation measures."""
    draws = [transform.sample(seeded(seed), grid) for seed in range(20)]
    for params in [*draws, *transform.cases(grid).values()]:
        latents = transform(torch.empty(1, 2, *grid, device='meta'), params)
        for factor in (4, 8, 16, 32):
            images = transform(torch.empty(1, 3, *(factor * side for side in grid), device='meta'), params)
            assert [factor * side for side in latents.shape[2:]] == list(images.shape[2:])


def test_cases_are_the_same_each_time_and_finite_on_images(transform):
    cases = transform.cases((16, 16))
    assert cases
    assert cases == transform.cases((16, 16))
    assert all(isinstance(name, str) and '/' not in name for name in cases)  # they become parts of metric names
    for params in cases.values():
        assert transform(torch.randn(2, 3, 16, 16), params).isfinite().all()


def test_draws_are_a_function_of_the_generator_and_vary(transform):
    draws = [transform.sample(seeded(seed), (16, 16)) for seed in range(30)]
    assert draws == [transform.sample(seeded(seed), (16, 16)) for seed in range(30)]
    assert len(set(draws)) > 1  # hashable, and not one constant


def test_draws_leave_the_global_generator_alone(transform):
    before = torch.get_rng_state()
    transform.sample(seeded(0), (16, 16))
    assert torch.equal(torch.get_rng_state(), before)


def test_params_survive_pickling(transform):
    params = transform.sample(seeded(3), (16, 16))
    x = torch.randn(1, 2, 16, 16)
    assert torch.equal(transform(x, pickle.loads(pickle.dumps(params))), transform(x, params))


def test_it_is_not_the_identity_and_passes_gradients(transform):
    x = torch.randn(1, 2, 16, 16, requires_grad=True)
    y = transform(x, transform.sample(seeded(3), (16, 16)))
    assert y.shape != x.shape or not torch.equal(y, x)
    y.square().sum().backward()
    assert x.grad.abs().sum() > 0


def test_it_keeps_the_dtype(transform):
    x = torch.randn(1, 2, 16, 16, dtype=torch.bfloat16)
    assert transform(x, transform.sample(seeded(3), (16, 16))).dtype == torch.bfloat16


def test_it_treats_each_image_alone(transform):
    x = torch.randn(3, 2, 16, 16)
    params = transform.sample(seeded(5), (16, 16))
    assert torch.equal(transform(x, params)[1:2], transform(x[1:2], params))
