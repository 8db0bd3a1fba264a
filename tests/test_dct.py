"""The cosine transform: SciPy's values in both directions, precision, gradients."""

import numpy as np
import pytest
import scipy.fft
import torch

from eqzoo.dct import dct, dct_matrix, inverse_dct

SIZES = [(8, 8), (5, 12), (64, 48), (1, 3)]


def normal(*size):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize('size', SIZES)
def test_the_transform_is_scipys(size):
    x = normal(*size)
    np.testing.assert_allclose(dct(x), scipy.fft.dctn(x.numpy(), axes=(2, 3), norm='ortho'), rtol=0, atol=1e-13)


@pytest.mark.parametrize('size', SIZES)
def test_the_inverse_is_scipys_and_undoes_the_transform(size):
    x = normal(*size)
    np.testing.assert_allclose(
        inverse_dct(x), scipy.fft.idctn(x.numpy(), axes=(2, 3), norm='ortho'), rtol=0, atol=1e-13
    )
    torch.testing.assert_close(inverse_dct(dct(x)), x, rtol=0, atol=1e-13)
    torch.testing.assert_close(dct(inverse_dct(x)), x, rtol=0, atol=1e-13)


def test_the_matrix_is_scipys_transform_of_the_unit_vectors():
    np.testing.assert_allclose(dct_matrix(7), scipy.fft.dct(np.eye(7), axis=0, norm='ortho'), rtol=0, atol=1e-15)


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float32, 2e-6), (torch.bfloat16, 0.06)])
def test_the_type_is_that_of_the_input(dtype, tolerance):
    """Of 64 x 64 values of variance 1; a basis computed in float32 would be off by 3e-5."""
    x = normal(64, 64).to(dtype)
    exact = scipy.fft.dctn(x.double().numpy(), axes=(2, 3), norm='ortho')
    for found, expected in ((dct(x), exact), (inverse_dct(dct(x)), x.double().numpy())):
        assert found.dtype == dtype
        np.testing.assert_allclose(found.double(), expected, rtol=0, atol=tolerance)


def test_gradients_pass_through_both():
    """Sums of squares are preserved: the gradient of ½ ‖dct(x)‖² is x."""
    for function in (dct, inverse_dct):
        x = normal(5, 6).requires_grad_()
        (function(x).square().sum() / 2).backward()
        torch.testing.assert_close(x.grad, x.detach(), rtol=0, atol=1e-13)
