"""Annotations of arguments: what each accepts, its message, and that every registered class checks its own."""

import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
import torch
from torch import nn

from eqzoo.registry import KINDS, TRANSFORMS, build, check_config
from eqzoo.registry.ranges import (
    Component,
    Decay,
    Filled,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Range,
    accepts,
    check_value,
    parameters_of,
)

# annotation, accepted values, refused values
CASES = [
    (PositiveInt, [1, 2**40], [0, -1, 1.0, 1.5, True, None, '1', math.nan, 2**70, [1], {}]),
    (NonNegativeInt, [0, 5], [-1, 0.0, False]),
    (PositiveFloat, [1, 1e-9], [0, -1.0, math.inf, math.nan, '1e-4', True, None, 10**400]),
    (NonNegativeFloat, [0, 0.5], [-1e-9, math.inf]),
    (Probability, [0, 1, 0.5], [-0.1, 1.1, True, '0.5']),
    (Decay, [0, 0.999], [1, -0.1]),
    (Annotated[float, Range(above=-1, at_most=1)], [1, -0.99], [-1, 1.01]),
    (Annotated[float, Range(above=0, below=1)], [0.5], [0, 1]),
    (Filled[PositiveInt], [[1], (1, 2)], [[], (0,), ('a',), 1, 'ab', {'a': 1}, None]),
    (Sequence[int], [(), [1, -1]], [[1.5], 'ab']),
    (Collection[str], [{'a'}, ['a']], ['a', [1]]),
    (tuple[Probability, Probability], [(0, 1), [0.5, 0.5]], [(0,), (0, 1, 1), (0, 2), 5, ('a', 'b')]),
    (tuple[int, ...], [(), (1, 2, 3)], [(1, 'a'), 1]),
    (Literal['a', 'b'], ['a'], ['c', None, 1, ['a']]),
    (Literal[1, 2], [1], [True, 1.0, '1']),
    (PositiveInt | Literal[-1] | None, [3, -1, None], [0, -2, 'a']),
    (str | Path, ['a', Path('a')], [5, None, b'a']),
    (bool, [True, False], [0, 1, None, 'true']),
    (Mapping[str, int], [{'a': 1}, {}], [{'a': 'b'}, {1: 1}, [1]]),
    (nn.Module, [nn.Identity(), dict(type='Rotate'), object()], [None, 5, 'a', [], {}, dict(size=5)]),
    (Callable[[int], int], [len, dict(type='L1')], [None, 5, 'a']),
    (Component, [dict(type='Rotate'), object()], [None, {}, 5, 'Rotate']),
    (Any, [None, 5, 'a', {}, []], []),
    ('torch.Tensor', [None, 5], []),
]


@pytest.mark.parametrize(('annotation', 'good', 'bad'), CASES, ids=[str(case[0])[:40] for case in CASES])
def test_what_an_annotation_accepts(annotation, good, bad):
    assert [value for value in good if not accepts(annotation, value)] == []
    assert [value for value in bad if accepts(annotation, value)] == []


@pytest.mark.parametrize(
    ('annotation', 'value', 'message'),
    [
        (PositiveInt, 0, 'X.y must be at least 1, got 0.'),
        (PositiveInt, 'a', "X.y must be a whole number of at least 1, got 'a'."),
        (PositiveInt, 1e4, 'X.y must be a whole number of at least 1, got 10000.0; write 10000.'),
        (PositiveFloat, '1e-4', "X.y must be a number above 0, got '1e-4'; write 0.0001, without quotes."),
        (PositiveFloat, '-1', "X.y must be a number above 0, got '-1'."),
        (PositiveInt | None, -1, 'X.y must be at least 1 or None, got -1.'),
        (Probability, 2, 'X.y must be in [0, 1], got 2.'),
        (Annotated[int, Range(at_least=0, at_most=2**32 - 1)], -1, 'X.y must be in [0, 4,294,967,295], got -1.'),
        (Literal['a', 'b', 'c'] | None, 'd', "X.y must be 'a', 'b', 'c' or None, got 'd'."),
        (Filled[int], (), 'X.y must be a list of one or more whole numbers, got ().'),
        (Filled[PositiveInt], (3, 0), 'X.y[1] must be at least 1, got 0.'),
        (tuple[Probability, Probability], (0, 0.5, 1), 'X.y must be 2 numbers in [0, 1], got (0, 0.5, 1).'),
        (str | tuple[int, int], 5, 'X.y must be text or 2 whole numbers, got 5.'),
        (nn.Module, None, 'X.y must be a component (Module), dict(type=…), got None.'),
        (int, 'x' * 500, f"X.y must be a whole number, got '{'x' * 98}…."),
    ],
)
def test_messages(annotation, value, message):
    with pytest.raises(ValueError, match='.') as raised:
        check_value('X.y', annotation, value)
    assert str(raised.value) == message


@pytest.fixture
def gear():
    """A user's own component, registered for one test."""

    class Gear:
        def __init__(self, teeth: PositiveInt, *, ratio: Probability = 0.5, mode: Literal['fine', 'coarse'] = 'fine'):
            self.teeth, self.ratio, self.mode = teeth, ratio, mode

    TRANSFORMS.register_module()(Gear)
    yield Gear
    del TRANSFORMS.module_dict['Gear']


def test_a_users_own_component_is_checked_in_a_config_on_building_and_on_calling(gear):
    assert build(dict(type='Gear', teeth=3)).teeth == gear(3).teeth == 3
    for make in (lambda: build(dict(type='Gear', teeth=0)), lambda: gear(0), lambda: gear(teeth=0)):
        with pytest.raises(ValueError, match=r'Gear.teeth must be at least 1, got 0'):
            make()
    with pytest.raises(ValueError, match=r"model\[0\]: Gear.mode must be 'fine' or 'coarse', got 'rough'"):
        list(check_config([dict(type='Gear', teeth=1, mode='rough')], 'model'))
    with pytest.raises(TypeError, match='missing 1 required positional argument'):
        gear()
    assert list(inspect.signature(gear).parameters) == ['teeth', 'ratio', 'mode']


def test_another_kind_of_component_is_refused_and_a_users_own_is_not(gear):
    penalty = dict(type='ExplicitEquivariance', transform=dict(type='L1'))
    with pytest.raises(ValueError, match=r'transform must be a component \(EquivarianceTransform\).* the loss L1'):
        list(check_config(penalty))
    list(check_config(dict(type='ExplicitEquivariance', transform=dict(type='Gear', teeth=2))))
    with pytest.raises(ValueError, match="evaluators: Unknown evaluator 'L1'"):
        list(check_config(dict(type='L1'), 'evaluators', kind=next(each for each in KINDS if each.name == 'evaluator')))


def test_arguments_that_are_only_passed_on_are_those_of_the_base_class():
    from mmengine.optim import LinearLR

    assert {'start_factor', 'begin', 'end', 'by_epoch'} <= {*parameters_of(LinearLR)}
    wrong = dict(type='LinearLR', start_factor='a', optimizer=None, param_name='lr')
    with pytest.raises(ValueError, match='LinearLR.start_factor must be a number'):
        list(check_config(wrong))


def test_a_tensor_is_no_number_and_an_iterator_is_not_used_up():
    assert not accepts(float, torch.tensor(1.0))
    values = iter([1, 2])
    assert accepts(Sequence[int], values)
    assert list(values) == [1, 2]


def _registered():
    for kind in KINDS:
        for name in kind.names():
            if kind.module_dict[name].__module__.startswith('eqzoo.'):
                yield name, kind.module_dict[name]


def _has_bounds(annotation):
    if get_origin(annotation) is Annotated:
        return True
    return any(_has_bounds(each) for each in get_args(annotation) if not isinstance(each, list))


# Numbers that may have any sign, or are judged by the constructor together with others.
FREE = {
    'max_angle', 'min_zoom', 'max_zoom', 'max_stretch', 'max_shear', 'max_shift', 'near', 'far',  # Affine, structure
    'scale', 'shift', 'mean', 'std',  # of latents
    'guidance', 'log_variance', 'delta', 'eval_shifts', 'eval_angles', 'interval', 'num_digits', 'window_size',
    'accumulative_counts',
}  # fmt: skip


@pytest.mark.parametrize(('name', 'cls'), list(_registered()))
def test_every_number_of_every_component_has_a_type_and_a_range(name, cls):
    """A contract: an argument without annotation, or a number without bounds, is a value that nobody checks."""
    for key, parameter in parameters_of(cls).items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or name == 'MeanLogProcessor':
            continue
        assert parameter.annotation is not parameter.empty, f'{name}.{key} has no annotation'
        is_number = accepts(parameter.annotation, 10**6) and not accepts(parameter.annotation, object())
        if is_number and key not in FREE:
            assert _has_bounds(parameter.annotation), f'{name}.{key} has no range'
