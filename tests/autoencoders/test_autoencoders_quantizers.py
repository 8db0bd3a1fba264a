"""Quantizers against computations of their own: numpy, closed forms, and the formulas of the papers written out."""

import itertools
import math
import socket

import numpy as np
import pytest
import torch
from torch import multiprocessing
from torch.nn import functional as F

from eqzoo.autoencoders import FSQ, LFQ, EMACodebook, NormalizedCodebook, VQAutoencoder
from eqzoo.autoencoders.quantizers import Quantizer
from eqzoo.distributed import close_distributed, init_distributed
from eqzoo.engine import CodebookHook
from eqzoo.evaluators import AutoencoderView, CodebookUsage
from eqzoo.registry import QUANTIZERS, build
from eqzoo.regularizers import ImplicitEquivariance, LatentStep
from eqzoo.transforms import Rotate

MAKE = {
    'EMACodebook': lambda: EMACodebook(16, 3),
    'NormalizedCodebook': lambda: NormalizedCodebook(16, 3),
    'FSQ': lambda: FSQ((8, 5, 4)),
    'LFQ': lambda: LFQ(3),
}
TINY = dict(block_out_channels=(8, 8), attention_levels=(), layers_per_block=1, norm_num_groups=4)


def made(name):
    torch.manual_seed(0)
    quantizer = MAKE[name]()
    if quantizer.codebook is not None:
        with torch.no_grad():
            quantizer.codebook.normal_()
    return quantizer.eval()


def autoencoder(name, **changes):
    quantizer = made(name)
    sizes = dict(latent_channels=quantizer.channels, num_codes=quantizer.num_codes)
    return VQAutoencoder(**{**TINY, **sizes, **changes}, quantizer=quantizer).eval()


def features(*shape, seed=1, scale=2.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_every_quantizer_is_tested():
    assert sorted(MAKE) == QUANTIZERS.names()


@pytest.mark.parametrize('name', MAKE)
def test_codes_and_indices_are_one_another(name):
    """All indices give different codes, and each code quantises to itself and its index, to the bit."""
    quantizer = made(name)
    everything = torch.arange(quantizer.num_codes)
    codes = quantizer.codes(everything)
    assert codes.shape == (quantizer.num_codes, quantizer.channels)
    assert len(codes.unique(dim=0)) == quantizer.num_codes
    z = features(2, quantizer.channels, 5, 7)
    latents, _, (_, _, indices) = quantizer(z)
    assert indices.dtype == torch.int64
    assert torch.equal(quantizer.codes(indices).movedim(-1, 1), latents)
    assert torch.equal(quantizer.get_codebook_entry(indices.flatten(), (2, 5, 7, -1)), latents)
    if name != 'FSQ':  # whose features are bounded before they are rounded
        assert torch.equal(quantizer(codes.T[None, :, None])[2][2].flatten(), everything)


def test_fsq_is_the_papers():
    """Its listing (appendix A.1) in numpy, and its counts of codes."""
    levels = (8, 5, 5, 3, 2)
    z = features(3, 5, 4, 4, scale=3.0).double()
    level = np.array(levels)
    half_l = (level - 1) * (1 - 1e-3) / 2
    offset = np.where(level % 2 == 1, 0.0, 0.5)
    bounded = np.tanh(z.numpy().transpose(0, 2, 3, 1) + np.tan(offset / half_l)) * half_l - offset
    code = np.round(bounded) / (level // 2)
    basis = np.concatenate(([1], np.cumprod(level[:-1])))
    index = ((code * (level // 2) + level // 2) * basis).sum(-1)
    latents, loss, (_, _, indices) = FSQ(levels)(z)
    np.testing.assert_allclose(latents.numpy().transpose(0, 2, 3, 1), code, atol=0)
    np.testing.assert_array_equal(indices.numpy(), index)
    assert loss == 0
    for channel, count in enumerate(levels):
        sweep = torch.zeros(1, 5, 1, 2001)
        sweep[0, channel] = torch.linspace(-9, 9, 2001)
        assert len(FSQ(levels)(sweep)[0][0, channel].unique()) == count
    sizes = {(8, 6, 5): 240, (8, 5, 5, 5): 1000, (7, 5, 5, 5, 5): 4375, (8, 8, 8, 6, 5): 15360}
    assert {key: FSQ(key).num_codes for key in sizes} == sizes


def test_fsq_passes_the_gradient_of_the_bounded_value():
    fsq, z = FSQ((8, 5)), features(2, 2, 3, 3).double().requires_grad_()
    weight = features(2, 2, 3, 3, seed=2).double()
    (fsq(z)[0] * weight).sum().backward()
    reach, shift = torch.tensor([3.4965, 1.998]).double(), torch.tensor([math.tan(0.5 / 3.4965), 0.0]).double()
    slope = (1 - torch.tanh(z.detach().movedim(1, -1) + shift) ** 2) * reach / torch.tensor([4.0, 2.0])
    torch.testing.assert_close(z.grad, weight * slope.movedim(-1, 1))


@pytest.mark.parametrize('temperature', [0.5, 3.0])
def test_lfqs_entropies_are_those_of_all_codes_written_out(temperature):
    """q(c | z) as a softmax over all 2**C codes, without the independence of bits."""
    lfq, z = LFQ(4, temperature=temperature, diversity=0.7), features(2, 4, 3, 3, scale=0.5).double()
    rows = z.movedim(1, -1).reshape(-1, 4)
    codes = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4))).double()
    q = (-torch.cdist(rows, codes).square() / temperature).softmax(dim=1)
    entropy = -(q * q.log()).sum(dim=1).mean()
    mean = q.mean(dim=0)
    torch.testing.assert_close(lfq.entropy_penalty(rows), entropy + 0.7 * (mean * mean.log()).sum())
    # in groups: the sum of the groups' entropies, at least as large as that of all together
    grouped = LFQ(4, temperature=temperature, diversity=0.7, group=3).entropy_penalty(rows)
    halves = q.view(-1, 2, 2, 2, 2)
    parts = [halves.sum(dim=4).flatten(1).mean(dim=0), halves.sum(dim=(1, 2, 3)).mean(dim=0)]
    wanted = entropy + 0.7 * sum((part * part.log()).sum() for part in parts)
    torch.testing.assert_close(grouped, wanted)
    assert grouped <= lfq.entropy_penalty(rows)


def test_lfq_is_signs_and_bits():
    lfq, z = LFQ(3, beta=0.5, entropy_weight=0.25), features(2, 3, 4, 5)
    latents, loss, (_, _, indices) = lfq(z)
    signs = np.where(z.numpy() > 0, 1, -1)
    np.testing.assert_array_equal(latents.numpy(), signs)
    np.testing.assert_array_equal(indices.numpy(), (signs > 0)[:, 0] + 2 * (signs > 0)[:, 1] + 4 * (signs > 0)[:, 2])
    commitment = 0.5 * (z - torch.from_numpy(signs)).square().mean()
    torch.testing.assert_close(loss, commitment + 0.25 * lfq.entropy_penalty(z.movedim(1, -1)))
    assert LFQ(3)(torch.zeros(1, 3, 1, 1))[2][2] == 0  # a zero is no bit


def test_lfqs_penalty_makes_bits_used_and_certain():
    """Features of one sign are driven apart: the penalty is least, −C log 2, where all codes are equally frequent."""
    torch.manual_seed(0)
    lfq = LFQ(3, temperature=1.0).train()
    z = (0.3 + 0.05 * torch.randn(256, 3)).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        lfq.entropy_penalty(z).backward()
        optimizer.step()
    assert float(lfq.entropy_penalty(z.detach())) == pytest.approx(-3 * math.log(2), abs=0.05)
    counts = lfq(z.detach().T[None, :, :, None])[2][2].flatten().bincount(minlength=8)
    assert counts.min() > 10


def test_a_normalised_codebook_compares_directions():
    quantizer, z = made('NormalizedCodebook'), features(2, 3, 4, 4)
    rows, table = z.movedim(1, -1).reshape(-1, 3).numpy(), quantizer.codebook.detach().numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    table = table / np.linalg.norm(table, axis=1, keepdims=True)
    nearest = (rows @ table.T).argmax(axis=1)  # the largest cosine
    latents, loss, (_, _, indices) = quantizer(z)
    np.testing.assert_array_equal(indices.flatten().numpy(), nearest)
    np.testing.assert_allclose(latents.movedim(1, -1).reshape(-1, 3).detach().numpy(), table[nearest], atol=1e-6)
    assert loss.item() == pytest.approx(1.25 * ((rows - table[nearest]) ** 2).mean(), rel=1e-5)
    scaled = quantizer(5 * z)
    assert torch.equal(scaled[2][2], indices)
    loss.backward()
    assert quantizer.codebook.grad.abs().sum() > 0


@pytest.mark.parametrize('name', ['EMACodebook', 'LFQ'])
def test_gradients_pass_straight_through(name):
    z, weight = features(2, 3, 2, 2).requires_grad_(), features(2, 3, 2, 2, seed=2)
    (made(name)(z)[0] * weight).sum().backward()
    assert torch.equal(z.grad, weight)


def test_gradients_of_a_normalised_codebook_pass_through_the_norm():
    z, weight = features(2, 3, 2, 2).requires_grad_(), features(2, 3, 2, 2, seed=2)
    (made('NormalizedCodebook')(z)[0] * weight).sum().backward()
    other = z.detach().clone().requires_grad_()
    (F.normalize(other, dim=1) * weight).sum().backward()
    torch.testing.assert_close(z.grad, other.grad)


def expected_averages(batches, table, decay=0.9, epsilon=1e-5):
    """The averages of VQ-VAE-2 in numpy, a step for each of `batches`, arrays (N, C)."""
    table = table.astype(np.float64)
    counts, sums = np.ones(len(table)), table.copy()
    for rows in batches:
        nearest = ((rows[:, None] - table) ** 2).sum(-1).argmin(1)
        one_hot = np.eye(len(table))[nearest]
        counts = decay * counts + (1 - decay) * one_hot.sum(0)
        sums = decay * sums + (1 - decay) * one_hot.T @ rows
        smoothed = (counts + epsilon) / (counts.sum() + len(table) * epsilon) * counts.sum()
        table = sums / smoothed[:, None]
    return table, counts, sums


def rows_of(z):
    return z.movedim(1, -1).reshape(-1, z.shape[1]).numpy().astype(np.float64)


def ema():
    torch.manual_seed(0)
    codebook = EMACodebook(8, 3, decay=0.9).train()
    with torch.no_grad():
        codebook.codebook.normal_()
        codebook.sums.copy_(codebook.codebook)
    return codebook


def assert_averages(codebook, expected):
    found = (codebook.codebook, codebook.counts, codebook.sums)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-4, atol=1e-5)


def test_an_averaged_codebook_moves_as_published():
    codebook = ema()
    table = codebook.codebook.detach().numpy().copy()
    batches = [features(2, 3, 3, 3, seed=seed) for seed in range(4)]
    for z in batches:
        for half in z.split(1):  # micro-batches of one step
            before = codebook.codebook.clone()
            loss = codebook(half.requires_grad_())[1]
            assert torch.equal(codebook.codebook, before)  # it moves after the step
        codebook.finish_step()
    assert_averages(codebook, expected_averages([rows_of(z.detach()) for z in batches], table))
    loss.backward()
    assert codebook.codebook.grad is None


def test_only_training_moves_averages():
    codebook, z = ema(), features(1, 3, 2, 2)
    before = [each.clone() for each in codebook.state_dict().values()]
    with torch.no_grad():
        codebook(z)
    codebook.eval()
    codebook(z)
    codebook.finish_step()
    codebook.train()
    codebook(z)
    codebook.drop_step()
    codebook.finish_step()
    assert all(map(torch.equal, codebook.state_dict().values(), before))


def _train_share(rank, port, folder):
    import os

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    init_distributed()
    codebook, lfq = ema(), LFQ(3).train()
    for seed in range(3):
        codebook(features(2, 3, 3, 3, seed=seed)[rank : rank + 1])
        codebook.finish_step()
    z = features(2, 3, 3, 3)[rank : rank + 1].requires_grad_()
    loss = lfq(z)[1]
    loss.backward()
    torch.save((codebook.state_dict(), loss.detach(), z.grad), f'{folder}/{rank}.pt')
    close_distributed()


@pytest.mark.slow
def test_two_processes_have_the_averages_and_entropies_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    multiprocessing.spawn(_train_share, (port, str(tmp_path)), nprocs=2)
    (first, loss0, grad0), (second, loss1, grad1) = (torch.load(tmp_path / f'{rank}.pt') for rank in range(2))
    assert all(map(torch.equal, first.values(), second.values()))
    batches = [rows_of(features(2, 3, 3, 3, seed=seed)) for seed in range(3)]
    expected = expected_averages(batches, ema().codebook.detach().numpy())
    for name, theirs in zip(('embedding.weight', 'counts', 'sums'), expected, strict=True):
        np.testing.assert_allclose(first[name].numpy(), theirs, rtol=1e-4, atol=1e-5)
    z = features(2, 3, 3, 3).requires_grad_()
    whole = LFQ(3).train()(z)[1]
    whole.backward()
    # each process has half of the cells, and its gradient counts half in the mean over processes
    torch.testing.assert_close(torch.cat([grad0, grad1]) / 2, z.grad)
    torch.testing.assert_close((loss0 + loss1) / 2, whole.detach())


@pytest.mark.parametrize('name', MAKE)
def test_an_autoencoder_trains_with_each(name):
    """Images to tokens and back, one step of training, a file and back."""
    model = autoencoder(name)
    images = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(1)) * 2 - 1
    tokens = model.tokens(images)
    assert tokens.shape == (2, 4, 6)
    assert tokens.max() < model.num_codes
    decoded = model.decode(model.encode(images).mean)
    torch.testing.assert_close(model.decode_tokens(tokens), decoded, atol=1e-5, rtol=0)
    model.train()
    passed = model.bottleneck(model.encode(images).mean)
    loss = (model.decode_latents(passed.latents) - images).square().mean() + sum(passed.penalties.values())
    loss.backward()
    trained = [each for each in model.parameters() if each.requires_grad]
    assert all(each.grad is not None for each in trained)
    assert model.encoder.conv_in.weight.grad.abs().sum() > 0
    before = None if model.codebook is None else model.codebook.detach().clone()
    torch.optim.SGD(trained, lr=0.1).step()
    model.finish_step(is_skipped=False)
    if before is not None:
        assert not torch.equal(model.codebook, before)
    other = autoencoder(name)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval().tokens(images), model.eval().tokens(images))


@pytest.mark.parametrize('name', MAKE)
@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.float16])
def test_each_works_in_every_type_of_weights(name, dtype):
    model = autoencoder(name).to(dtype)
    images = (torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1).to(dtype)
    z = model.encode(images).mean
    passed = model.bottleneck(z)
    assert (
        z.dtype == passed.latents.dtype == model.decode(z).dtype == model.decode_tokens(passed.indices).dtype == dtype
    )
    # distances and rounding are computed in float32 of the same numbers
    wide = made(name).to(torch.promote_types(dtype, torch.float32))
    wide.load_state_dict({key: value.to(wide.state_dict()[key]) for key, value in model.quantize.state_dict().items()})
    assert torch.equal(wide(z.to(torch.promote_types(dtype, torch.float32)))[2][2], passed.indices)
    model.train().bottleneck(z.detach().requires_grad_())
    model.finish_step(is_skipped=False)
    assert all(value.isfinite().all() for value in model.quantize.state_dict().values())


@pytest.mark.parametrize('act_on', ['features', 'codes'])
@pytest.mark.parametrize('name', MAKE)
def test_equivariance_acts_before_or_after_each(name, act_on):
    """A quarter turn of codes or of features is the same for quantizers, which look at one cell at a time."""
    model = autoencoder(name)
    images = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    objective = ImplicitEquivariance(Rotate((1,)), 1.0, act_on=act_on)
    draw = objective.sample(torch.Generator().manual_seed(0), (4, 4))
    (pair,) = objective(LatentStep(model, None), images, draw)
    turned = model.bottleneck(model.encode(images).mean).latents.rot90(1, (2, 3))
    torch.testing.assert_close(pair.reconstruction, model.decode_latents(turned), atol=1e-5, rtol=0)
    torch.testing.assert_close(pair.target, images.rot90(1, (2, 3)))


@pytest.mark.parametrize('name', MAKE)
def test_usage_is_counted(name):
    model, evaluator = autoencoder(name), CodebookUsage()
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    evaluator.process(AutoencoderView(model, images))
    counts = model.tokens(images).flatten().bincount(minlength=model.num_codes)
    shares = counts[counts > 0] / counts.sum()
    metrics = evaluator.evaluate(4)
    assert metrics['codebook/usage'] == (counts > 0).sum() / model.num_codes
    assert metrics['codebook/perplexity'] == pytest.approx(float((-(shares * shares.log()).sum()).exp()), rel=1e-5)


class Run:
    """What `CodebookHook` needs of a run."""

    seed = iter = 0

    def __init__(self, model):
        self.model = torch.nn.Module()
        self.model.autoencoder, self.model.is_repeating = model, False
        optimizer = torch.optim.Adam([each for each in model.parameters() if each.requires_grad])
        self.optim_wrapper = {'autoencoder': type('Wrapped', (), dict(optimizer=optimizer))}


@pytest.mark.parametrize('name', ['EMACodebook', 'NormalizedCodebook'])
def test_idle_codes_are_replaced(name):
    model, hook = autoencoder(name).train(), CodebookHook(revive_after=1)
    runner = Run(model)
    hook.before_run(runner)
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    z = features(1, 3, 8, 8)
    chosen = model.bottleneck(z).indices.unique()
    log = {}
    hook.after_train_iter(runner, 0, {'draws': torch.zeros(1)}, log)
    idle = sorted(set(range(16)) - set(chosen.tolist()))
    assert log['codebook/usage'] == len(chosen) / 16
    assert log['codebook/revived'] == len(idle) > 0
    rows = z.movedim(1, -1).reshape(-1, 3)
    assert all((rows == model.codebook[place]).all(dim=1).any() for place in idle)
    if name == 'EMACodebook':
        assert torch.equal(model.quantize.sums[idle], model.codebook[idle])
        assert (model.quantize.counts[idle] == 1).all()


def test_computed_codes_are_counted_but_not_replaced():
    runner = Run(autoencoder('FSQ'))
    CodebookHook().before_run(runner)
    with pytest.raises(ValueError, match=r'CodebookHook.revive_after: got 3, but FSQ computes its codes'):
        CodebookHook(revive_after=3).before_run(runner)


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match=r'latent_channels and num_codes: got 4 and 1,024; FSQ has 2 and 40'):
        VQAutoencoder(4, **TINY, quantizer=FSQ((8, 5)))
    with pytest.raises(ValueError, match=r"got 0.5 and 'codebook', which are of taming's quantizer; .* of FSQ itself"):
        VQAutoencoder(2, 40, **TINY, beta=0.5, quantizer=FSQ((8, 5)))
    with pytest.raises(ValueError, match=r'FSQ.levels.* must be at least 2, got 1'):
        FSQ((8, 1))
    with pytest.raises(ValueError, match=r'FSQ.levels: got .* whose product is above'):
        FSQ((1000,) * 7)
    with pytest.raises(ValueError, match=r'LFQ.channels must be .*, got 63'):
        LFQ(63)
    with pytest.raises(ValueError, match=r'EMACodebook.decay must be .*, got 1.0'):
        EMACodebook(16, 3, decay=1.0)
    with pytest.raises(ValueError, match='FSQ'):
        build(dict(type='VQAutoencoder', **TINY, quantizer=dict(type='FSC', levels=(8, 5))))
    with pytest.raises(ValueError, match='VQAutoencoder.quantizer'):
        VQAutoencoder(2, 40, **TINY, quantizer='FSQ')


def test_a_bare_quantizer_computes_no_table():
    assert Quantizer(4, 2).codebook is None
