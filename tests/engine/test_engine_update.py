"""An optimizer's step: gradients clipped or left out, and what is logged of them."""

import pytest
import torch
from mmengine.config import Config
from torch import nn

from eqzoo.engine.runner import build_optimizers
from eqzoo.engine.training import Training


class Line(Training):
    """A model of two weights."""

    subjects = ('line',)

    def __init__(self, on_nonfinite='stop'):
        super().__init__(None, 'fp32', on_nonfinite)
        self.line = nn.Linear(2, 1, bias=False)
        self.line.weight.data.zero_()

    def parameter_groups(self):
        return {'line': list(self.line.parameters())}

    train_step = blocks = describe = stored_config = None


def updated(gradient, on_nonfinite='stop', **options):
    model = Line(on_nonfinite)
    config = Config(dict(optim_wrapper=dict(line=dict(optimizer=dict(type='SGD', lr=1.0), **options))))
    optimizer = build_optimizers(model, config)['line']
    model.line.weight.grad = torch.tensor([gradient])
    log = model.update(optimizer)
    assert model.line.weight.grad is None
    return model.line.weight.tolist()[0], {name: float(value) for name, value in log.items()}


def test_a_step_is_along_the_gradient_and_says_nothing():
    assert updated([3.0, 4.0]) == ([-3.0, -4.0], {})


def test_gradients_are_clipped_to_their_norm():
    weights, log = updated([3.0, 4.0], clip_grad=dict(max_norm=1.0))
    assert weights == pytest.approx([-0.6, -0.8], rel=1e-5)
    assert log == {'grad_norm': 5.0}
    assert updated([0.3, 0.4], clip_grad=dict(max_norm=1.0))[0] == pytest.approx([-0.3, -0.4])


@pytest.mark.parametrize('bad', [torch.nan, torch.inf])
def test_gradients_that_are_not_finite_can_be_left_out(bad):
    weights, log = updated([bad, 1.0], 'skip')
    assert weights == [0.0, 0.0]
    assert log['skipped'] == 1
    assert updated([3.0, 4.0], 'skip') == ([-3.0, -4.0], {'grad_norm': 5.0, 'skipped': 0.0})


def test_what_is_not_known_is_refused():
    with pytest.raises(ValueError, match="Line.on_nonfinite must be 'stop' or 'skip', got 'go'"):
        Line('go')
    for options in (dict(clip_value=1.0), dict(max_norm=0)):
        with pytest.raises(ValueError, match='optim_wrapper.clip_grad: got .*max_norm=NUMBER'):
            updated([1.0, 1.0], clip_grad=options)
