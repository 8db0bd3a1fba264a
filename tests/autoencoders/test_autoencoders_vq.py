"""The VQ autoencoder: published counts, parity with diffusers' VQModel, and what its quantizer is given."""

from pathlib import Path

import pytest
import torch
from diffusers.models import VQModel

from eqzoo.autoencoders import VQAutoencoder
from eqzoo.loading import autoencoder_config
from eqzoo.registry import build
from eqzoo.regularizers import ExplicitEquivariance, ImplicitEquivariance, LatentStep, Plain
from eqzoo.transforms import IsotropicScale, Rotate

CONFIGS = Path(__file__).parents[2] / 'configs'
TINY = dict(
    latent_channels=4, num_codes=16, block_out_channels=(8, 8, 8), attention_levels=(2,), layers_per_block=1
) | dict(norm_num_groups=4)


def read_config(name):
    return autoencoder_config(next(CONFIGS.glob(f'*/autoencoders/{name}.py')))


def images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def make(**changes):
    torch.manual_seed(0)
    autoencoder = VQAutoencoder(**{**TINY, **changes}).eval()
    with torch.no_grad():
        for parameter in autoencoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        autoencoder.quantize.embedding.weight.mul_(5)
    return autoencoder


# taming's README rounds them to 72.142 M; reference instantiations of its classes give the rest.
@pytest.mark.parametrize(('name', 'total'), [('vqgan_f16_1024', 72_141_699), ('vqgan_f16_16384', 76_073_859)])
def test_base_configs_build_the_published_networks(name, total):
    with torch.device('meta'):
        autoencoder = build({**read_config(name), 'weights': None})
    modules = (autoencoder, autoencoder.encoder, autoencoder.decoder)
    counts = [sum(each.numel() for each in module.parameters()) for module in modules]
    assert counts == [total, 29_298_176, 42_449_795]
    assert autoencoder.grid(256, 256) == (16, 16)


def test_outputs_are_those_of_diffusers():
    ours = make(feature_channels=8)
    theirs = VQModel(
        down_block_types=('DownEncoderBlock2D', 'DownEncoderBlock2D', 'AttnDownEncoderBlock2D'),
        up_block_types=('AttnUpDecoderBlock2D', 'UpDecoderBlock2D', 'UpDecoderBlock2D'),
        block_out_channels=(8, 8, 8),
        latent_channels=8,
        vq_embed_dim=4,
        num_vq_embeddings=16,
        norm_num_groups=4,
    ).eval()
    state = {key: value for key, value in ours.state_dict().items() if not key.startswith('normalization.')}
    theirs.load_state_dict(state)
    x = images(2, 3, 32, 16)
    with torch.no_grad():
        assert torch.equal(ours.encode(x).mean, theirs.encode(x).latents)
        # diffusers adds the straight-through difference in another order: rounding of one step
        torch.testing.assert_close(ours.decode(ours.encode(x).mean), theirs(x).sample, atol=1e-6, rtol=1e-6)


def test_each_feature_becomes_its_nearest_code():
    autoencoder = make()
    z = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(1))
    passed = autoencoder.bottleneck(z)
    codes = autoencoder.quantize.embedding.weight
    nearest = torch.cdist(z.movedim(1, -1).reshape(-1, 4), codes).argmin(dim=1)
    assert torch.equal(passed.indices, nearest.view(2, 3, 5))
    torch.testing.assert_close(passed.latents, codes[nearest].view(2, 3, 5, 4).movedim(-1, 1))
    assert len(nearest.unique()) > 5


@pytest.mark.parametrize(('beta_on', 'factors'), [('codebook', (0.5, 1.0)), ('commitment', (1.0, 0.5))])
def test_penalty_and_its_gradients(beta_on, factors):
    """Both terms have the value of the distance; they differ in whom they pull."""
    autoencoder = make(beta=0.5, beta_on=beta_on, codebook_weight=3.0)
    z = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    passed = autoencoder.bottleneck(z)
    distance = (passed.latents - z).detach()
    torch.testing.assert_close(passed.penalties['codebook'], 3.0 * 1.5 * distance.square().mean())
    passed.penalties['codebook'].backward()
    codebook_factor, commitment_factor = factors
    torch.testing.assert_close(z.grad, -3.0 * commitment_factor * 2 * distance / distance.numel())
    wanted = torch.zeros_like(autoencoder.quantize.embedding.weight)
    pulls = 3.0 * codebook_factor * 2 * distance / distance.numel()
    wanted.index_add_(0, passed.indices.flatten(), pulls.movedim(1, -1).reshape(-1, 4))
    torch.testing.assert_close(autoencoder.quantize.embedding.weight.grad, wanted)


def test_gradients_pass_straight_through():
    z = torch.randn(1, 4, 2, 2).requires_grad_()
    weight = torch.randn(1, 4, 2, 2)
    (make().bottleneck(z).latents * weight).sum().backward()
    assert torch.equal(z.grad, weight)


def test_nearest_codes_are_found_in_full_precision_under_autocast():
    autoencoder = make(num_codes=512)
    z = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    full = autoencoder.bottleneck(z).indices
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(autoencoder.bottleneck(z).indices, full)


@pytest.mark.parametrize(('dtype', 'atol'), [(torch.float64, 1e-5), (torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_every_type_of_weights_works(dtype, atol):
    """In half precision, distances to codes are computed in float32 of the same features and codes."""
    full, autoencoder, x = make(), make().to(dtype), images(2, 3, 16, 32)
    with torch.no_grad():
        features = autoencoder.encode(x.to(dtype)).mean
        found = autoencoder.bottleneck(features)
        assert features.dtype == found.latents.dtype == autoencoder.decode(features).dtype == dtype
        torch.testing.assert_close(features.float(), full.encode(x).mean, atol=atol, rtol=0.05)
        codes, rows = autoencoder.quantize.embedding.weight.double(), features.double().movedim(1, -1)
        distances = (rows[..., None, :] - codes).square().sum(-1)
        assert torch.equal(found.indices, distances.argmin(-1))
        nearest = codes[found.indices].movedim(-1, 1)
        torch.testing.assert_close(found.latents.double(), nearest, atol=1e-5, rtol=0.01)
        assert autoencoder.decode_tokens(autoencoder.tokens(x.to(dtype))).dtype == dtype
    loss = autoencoder.bottleneck(features.requires_grad_()).penalties['codebook']
    loss.backward()
    assert autoencoder.quantize.embedding.weight.grad.abs().sum() > 0


def test_tokens_go_there_and_back():
    autoencoder = make()
    x = images(2, 3, 16, 32)
    with torch.no_grad():
        tokens = autoencoder.tokens(x)
        assert tokens.shape == (2, 4, 8)
        decoded = autoencoder.decode(autoencoder.encode(x).mean)
        # z + (z_q - z), which lets gradients pass, is z_q but for rounding
        torch.testing.assert_close(autoencoder.decode_tokens(tokens), decoded, atol=1e-4, rtol=0)
        assert decoded.std() > 0.1


@pytest.mark.parametrize('tokens', [torch.full((1, 2, 2), 16), torch.full((1, 2, 2), -1), torch.zeros(4).long()])
def test_tokens_outside_the_codebook_are_refused(tokens):
    with pytest.raises(ValueError, match=r'\(B, h, w\) and 0 to 15'):
        make().decode_tokens(tokens)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match=r'VQAutoencoder.num_codes must be at least 2, got 1'):
        VQAutoencoder(num_codes=1)
    with pytest.raises(ValueError, match=r"beta_on must be 'codebook' or 'commitment', got 'both'"):
        VQAutoencoder(beta_on='both')


def noise(like):
    raise AssertionError('a VQ autoencoder draws nothing')


class Recorded(VQAutoencoder):
    """Remembers what its quantizer and its decoder were given."""

    def bottleneck(self, z):
        self.quantised = z
        return super().bottleneck(z)

    def decode_latents(self, z):
        self.decoded = z
        return super().decode_latents(z)


@pytest.mark.parametrize('act_on', ['features', 'codes'])
def test_transforms_act_before_or_after_quantisation(act_on):
    torch.manual_seed(0)
    autoencoder = Recorded(**TINY)
    objective = ImplicitEquivariance(IsotropicScale(), 1.0, act_on=act_on)
    x = images(2, 3, 32, 32)
    draw = objective.sample(torch.Generator().manual_seed(0), (8, 8))
    step = LatentStep(autoencoder, noise)
    (pair,) = objective(step, x, draw)
    z, tau = autoencoder.encode(x).mean, lambda y: objective.transform(y, draw.params)
    codes = autoencoder.quantize.embedding.weight
    if act_on == 'features':
        torch.testing.assert_close(autoencoder.quantised, tau(z))
        # whatever is decoded is a code
        gaps = torch.cdist(autoencoder.decoded.movedim(1, -1).reshape(-1, 4), codes).amin(dim=1)
        assert gaps.max() < 1e-3 < codes.std()  # cdist rounds
    else:
        torch.testing.assert_close(autoencoder.quantised, z)
        torch.testing.assert_close(autoencoder.decoded, tau(VQAutoencoder.bottleneck(autoencoder, z).latents))
    torch.testing.assert_close(pair.target, tau(x))
    wanted = VQAutoencoder.bottleneck(autoencoder, autoencoder.quantised).penalties['codebook']
    torch.testing.assert_close(step.penalties['codebook'], wanted)


def test_explicit_penalty_is_on_features_beside_the_codebook():
    penalty = ExplicitEquivariance(Rotate(), weight=2.0)
    autoencoder, x = make(), images(1, 3, 16, 16)
    draw = penalty.sample(torch.Generator().manual_seed(0), (4, 4))
    step = LatentStep(autoencoder, noise)
    Plain()(step, x, None)
    turned = x.rot90(draw, (2, 3))
    gap = autoencoder.encode(x).mean.rot90(draw, (2, 3)) - autoencoder.encode(turned).mean
    torch.testing.assert_close(penalty(step, draw)['explicit'], 2.0 * gap.square().sum())
    torch.testing.assert_close(
        step.penalties['codebook'], autoencoder.bottleneck(autoencoder.encode(x).mean).penalties['codebook']
    )


def test_training_refuses_what_does_not_fit():
    training = dict(
        type='AutoencoderTraining',
        autoencoder=dict(type='VQAutoencoder', **TINY),
        objective=dict(type='Plain'),
        reconstruction_loss=dict(type='ReconstructionLoss', pixel=dict(type='L1')),
    )
    build(training)
    with pytest.raises(ValueError, match=r'KLDivergence: VQAutoencoder has no posterior; leave it out'):
        build({**training, 'penalties': [dict(type='KLDivergence')]})
    continuous = dict(type='KLAutoencoder', block_out_channels=(8, 8), norm_num_groups=4)
    objective = dict(type='ImplicitEquivariance', transform=dict(type='Rotate'), act_on='codes')
    build({**training, 'objective': objective})
    with pytest.raises(ValueError, match=r"got 'codes', but KLAutoencoder has no codebook; use 'features'"):
        build({**training, 'autoencoder': continuous, 'objective': objective})
