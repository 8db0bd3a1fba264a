"""Alignment with features of a vision network: values, gradients, grids, and what is trained."""

import numpy as np
import pytest
import torch

from eqzoo.autoencoders import TinyAutoencoder
from eqzoo.regularizers import FeatureAlignment, LatentStep


class Encoder:
    """Tokens that are given; one for each cell of 4 x 4 pixels without them."""

    num_features = 6

    def __init__(self, tokens=None):
        self.tokens = tokens

    def __call__(self, images):
        assert images.dtype == torch.uint8
        return torch.zeros(len(images), images[0, 0].numel() // 16, 6) if self.tokens is None else self.tokens


def aligned(latents, tokens, **arguments):
    alignment = FeatureAlignment(Encoder(tokens), **{'adaptive': False, **arguments})
    alignment.prepare(TinyAutoencoder(latents.shape[1], (1, 1, 1), width=8))
    step = LatentStep(None, torch.zeros_like)
    step.images, step.latents = torch.zeros(len(latents), 3, 4 * latents.shape[2], 4 * latents.shape[3]), latents
    return alignment, step, alignment(step)['alignment']


def cosines(a, b):
    a, b = (each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (a, b))
    return a @ np.swapaxes(b, -1, -2)


@pytest.mark.parametrize('margins', [(0.0, 0.0), (0.5, 0.25), (0.9, 0.1)])
def test_the_loss_is_the_papers(margins):
    generator = torch.Generator().manual_seed(0)
    latents, tokens = torch.randn(2, 5, 3, 4, generator=generator), torch.randn(2, 12, 6, generator=generator)
    alignment, step, found = aligned(latents, tokens, weight=0.5, cosine_margin=margins[0], distance_margin=margins[1])
    kernel = alignment.projection.weight[:, :, 0, 0].detach().double().numpy()
    projected = np.einsum('fc,bchw->bhwf', kernel, latents.double().numpy()).reshape(2, 12, 6)
    features = tokens.double().numpy()
    own = np.diagonal(cosines(projected, features), axis1=1, axis2=2)
    cosine = np.maximum(0, 1 - margins[0] - own).mean()
    between = np.abs(cosines(projected, projected) - cosines(features, features))
    distances = np.maximum(0, between - margins[1]).mean()
    assert found.item() == pytest.approx(0.5 * (cosine + distances), rel=1e-5)
    assert step.log['cosine'].item() == pytest.approx(cosine, rel=1e-5)
    assert step.log['distances'].item() == pytest.approx(distances, rel=1e-5)


def test_descent_aligns_latents_and_projection():
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 5, 2, 2, generator=generator).requires_grad_()
    tokens = torch.randn(1, 4, 6, generator=generator)
    alignment, step, found = aligned(latents, tokens, cosine_margin=0.0)
    found.backward()
    assert latents.grad.abs().sum() > 0
    with torch.no_grad():
        step.latents = latents - 0.1 * latents.grad / latents.grad.norm()
        alignment.projection.weight -= 0.1 * alignment.projection.weight.grad / alignment.projection.weight.grad.norm()
    assert alignment(step)['alignment'] < found


def test_only_the_projection_is_trained_and_stored():
    alignment, _, _ = aligned(torch.ones(1, 5, 2, 2), torch.ones(1, 4, 6))
    assert [*alignment.state_dict()] == ['projection.weight']
    assert alignment.state_dict()['projection.weight'].shape == (6, 5, 1, 1)


def test_features_are_averaged_when_an_objective_shrinks_the_images():
    tokens = torch.randn(1, 16, 6, generator=torch.Generator().manual_seed(2))
    found = FeatureAlignment._on_grid(tokens, (2, 2))
    wanted = tokens.view(1, 2, 2, 2, 2, 6).mean(dim=(2, 4)).view(1, 4, 6)
    torch.testing.assert_close(found, wanted)
    assert FeatureAlignment._on_grid(tokens, (2, 8)) is tokens


def test_another_number_of_tokens_is_refused():
    alignment = FeatureAlignment(Encoder())
    alignment.prepare(TinyAutoencoder(4, (1, 1, 1), width=8))
    alignment.check_grid((8, 8))
    alignment = FeatureAlignment(Encoder())
    alignment.prepare(TinyAutoencoder(4, (1, 1, 1, 1), width=8))
    with pytest.raises(ValueError, match=r'gives 256 tokens for images of 64 x 64, and latents have 8 x 8 cells'):
        alignment.check_grid((8, 8))


def test_margins_are_checked():
    with pytest.raises(ValueError, match=r'FeatureAlignment.distance_margin must be in \[0, 1\], got 2'):
        FeatureAlignment(Encoder(), distance_margin=2)
