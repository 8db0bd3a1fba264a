"""TF32 is off inside, and outside as it was, also after an error."""

import pytest
import torch

from eqzoo.precision import full_precision


def allowed():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture(params=[(True, True), (False, True), (True, False)])
def before(request):
    found = allowed()
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = request.param
    yield request.param
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = found


def test_it_is_set_back(before):
    with full_precision():
        assert allowed() == (False, False)
    assert allowed() == before
    with pytest.raises(KeyError), full_precision():
        raise KeyError
    assert allowed() == before
