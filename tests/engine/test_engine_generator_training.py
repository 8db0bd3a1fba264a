"""A generator's step: latents drawn from posteriors, batches cut anywhere, and what does not fit is refused."""

import copy

import pytest
import torch
from mmengine.config import Config

from eqzoo.autoencoders import KLAutoencoder, VQAutoencoder
from eqzoo.data import Shapes
from eqzoo.data.latents import LatentStore
from eqzoo.data.latents.write import write_store
from eqzoo.engine import GeneratorTraining
from eqzoo.engine.runner import build_optimizers
from eqzoo.generators import Generator
from eqzoo.randomness import StepRandomness
from eqzoo.registry import build

SMALL = dict(layers_per_block=1, norm_num_groups=4)
CLASSES = 4


def kl(seed=0, **options):
    torch.manual_seed(seed)
    return KLAutoencoder(3, (8, 8), **SMALL, **{'scale': 0.5, **options}).eval()


def dit(**options):
    network = dict(type='DiffusionTransformer', size=(1, 16, 2), latent_channels=3, latent_size=8, num_classes=CLASSES)
    torch.manual_seed(1)
    generator = build(dict(type='DiT', network={**network, **options}, process=dict(type='GaussianDiffusion')))
    for parameter in generator.parameters():  # zeros at the start keep gradients from the blocks
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return generator


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('store')
    write_store(kl(), Shapes(16, 16, num_classes=CLASSES), folder, batch_size=8)
    return folder


@pytest.fixture
def batch(root):
    return LatentStore(root).__getitems__([(index, 100 + index) for index in range(6)])


def optimizers(model):
    config = Config(dict(optim_wrapper=dict(generator=dict(optimizer=dict(type='SGD', lr=0.1)))))
    return build_optimizers(model, config)


class Echo(Generator):
    """A generator whose loss shows what it was given."""

    def __init__(self, inner):
        super().__init__(inner.network)
        self.seen = []

    def loss(self, batch, streams):
        self.seen.append({**batch, 'next': streams.uniform()})
        return {'loss': self.network.final_layer.linear.weight.square().sum()}


def test_latents_are_drawn_from_their_posteriors_by_the_draws_streams(batch):
    echo = Echo(dit())
    model = GeneratorTraining(echo, kl(), micro_batch_size=4)
    model.train_step(batch, optimizers(model), StepRandomness(5, 9))
    streams = StepRandomness(5, 9).streams(batch['draws'])
    latents = batch['mean'] + batch['std'] * streams.normal(batch['mean'])
    torch.testing.assert_close(torch.cat([each['latents'] for each in echo.seen]), latents)
    assert torch.equal(torch.cat([each['next'] for each in echo.seen]), streams.uniform())  # the streams go on
    assert [len(each['labels']) for each in echo.seen] == [4, 2]
    assert 'mean' not in echo.seen[0]


def test_a_step_is_gradient_descent_on_the_logged_loss_however_the_batch_is_cut(batch):
    steps = {}
    for size in (None, 4):
        model = GeneratorTraining(dit(), kl(), micro_batch_size=size)
        before = copy.deepcopy(model.generator)
        log = model.train_step(batch, optimizers(model), StepRandomness(0, 3))
        steps[size] = log, model.generator.state_dict()
    streams = StepRandomness(0, 3).streams(batch['draws'])
    latents = torch.addcmul(batch['mean'], batch['std'], streams.normal(batch['mean']))
    loss = before.loss(dict(latents=latents, labels=batch['labels']), streams)['loss']
    loss.backward()
    torch.testing.assert_close(steps[None][0]['loss'], loss.detach())
    for name, parameter in before.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(steps[None][1][name], (parameter - 0.1 * parameter.grad).detach())
    torch.testing.assert_close(steps[4][0]['loss'], steps[None][0]['loss'])
    for name, value in steps[None][1].items():
        torch.testing.assert_close(steps[4][1][name], value, rtol=1e-4, atol=1e-6)


def test_the_autoencoder_is_outside():
    model = GeneratorTraining(dit(), kl())
    names = set(model.state_dict())
    assert names == {f'generator.{name}' for name in model.generator.state_dict()}
    assert not any(parameter.requires_grad for parameter in model.autoencoder.parameters())
    model.train()
    assert not model.autoencoder.training


def test_channels_of_the_autoencoder_must_be_those_of_the_network():
    with pytest.raises(ValueError, match=r'latents of 4 channels, KLAutoencoder has 3; set .*latent_channels=3'):
        GeneratorTraining(dit(latent_channels=4), kl())


def test_data_of_another_kind_size_or_autoencoder_are_refused(root, tmp_path):
    store = LatentStore(root)
    GeneratorTraining(dit(), kl()).check_data(store)
    with pytest.raises(ValueError, match=r'has latents 3 x 8 x 8; the network is for 3 x 4 x 4; set .*latent_size'):
        GeneratorTraining(dit(latent_size=4), kl()).check_data(store)
    with pytest.raises(ValueError, match=r'has 4 classes, labels 0 to 3; the network has 2; set .*num_classes to 4'):
        GeneratorTraining(dit(num_classes=2), kl()).check_data(store)
    with pytest.raises(ValueError, match='these latents are of the autoencoder .*, the config has'):
        GeneratorTraining(dit(), kl(seed=1)).check_data(store)
    with pytest.raises(ValueError, match=r'these latents are normalised with scale \(0.5, 0.5, 0.5\)'):
        GeneratorTraining(dit(), kl(scale=1.0)).check_data(store)
    with pytest.raises(ValueError, match='Shapes has no latents; a generator learns from a LatentStore'):
        GeneratorTraining(dit(), kl()).check_data(Shapes(4, 16))
    vq = VQAutoencoder(num_codes=8, latent_channels=3, block_out_channels=(8, 8), attention_levels=(), **SMALL).eval()
    write_store(vq, Shapes(8, 16, num_classes=CLASSES), tmp_path / 'codes', batch_size=8)
    with pytest.raises(ValueError, match='has codes; DiT learns moments; take a generator for these'):
        GeneratorTraining(dit(), kl()).check_data(LatentStore(tmp_path / 'codes'))


def vq(num_codes=8):
    torch.manual_seed(0)
    return VQAutoencoder(3, num_codes, (8, 8), attention_levels=(), **SMALL).eval()


def maskgit(**options):
    network = dict(type='MaskTransformer', size=(1, 16, 2), num_codes=8, grid=8, num_classes=CLASSES, dropout=0.0)
    torch.manual_seed(1)
    return build(dict(type='MaskGIT', network={**network, **options}))


def test_codes_are_learned_as_they_are_and_of_their_own_codebook(tmp_path):
    write_store(vq(), Shapes(16, 16, num_classes=CLASSES), tmp_path, batch_size=8)
    store = LatentStore(tmp_path)
    batch = store.__getitems__([(index, 100 + index) for index in range(6)])
    GeneratorTraining(maskgit(), vq()).check_data(store)
    gradients = {}
    for size in (None, 4):
        model = GeneratorTraining(maskgit(), vq(), micro_batch_size=size)
        before = copy.deepcopy(model.generator.state_dict())
        log = model.train_step(batch, optimizers(model), StepRandomness(5, 9))
        streams = StepRandomness(5, 9).streams(batch['draws'])
        expected = maskgit().loss(batch, streams)
        torch.testing.assert_close(log['loss'], expected['loss'])
        gradients[size] = {n: before[n] - value for n, value in model.generator.state_dict().items()}
        assert all(change.abs().max() > 0 for change in gradients[size].values())
    torch.testing.assert_close(gradients[4], gradients[None], rtol=1e-4, atol=1e-6)

    with pytest.raises(ValueError, match=r'has codes 8 x 8; the network is for 4 x 4; set grid of model'):
        GeneratorTraining(maskgit(grid=4), vq()).check_data(store)
    changed = vq()
    changed.quantize.embedding.weight.data[0] += 1
    with pytest.raises(ValueError, match=r'these latents are of the autoencoder'):
        GeneratorTraining(maskgit(), changed).check_data(store)
    with pytest.raises(ValueError, match='has codes of a codebook of 8; the network is for 9; set .*num_codes=8'):
        GeneratorTraining(maskgit(num_codes=9), vq(9)).check_data(store)
    with pytest.raises(ValueError, match='the generator makes 9 codes, VQAutoencoder has 8; set .*num_codes=8'):
        GeneratorTraining(maskgit(num_codes=9), vq())
    with pytest.raises(ValueError, match='MaskGIT makes codes, and KLAutoencoder has no codebook'):
        GeneratorTraining(maskgit(), kl())
    write_store(kl(), Shapes(8, 16, num_classes=CLASSES), tmp_path / 'latents', batch_size=8)
    with pytest.raises(ValueError, match='has moments; MaskGIT learns codes'):
        GeneratorTraining(maskgit(), vq()).check_data(LatentStore(tmp_path / 'latents'))


def test_precision_is_one_of_two():
    with pytest.raises(ValueError, match="GeneratorTraining.precision must be 'fp32' or 'bf16', got 'fp16'"):
        GeneratorTraining(dit(), kl(), precision='fp16')


def test_checkpoints_say_what_builds_the_generator_and_whose_latents_it_makes():
    model = GeneratorTraining(dit(), kl())
    config = dict(
        type='DiT',
        network=dict(type='DiffusionTransformer', size=(1, 16, 2), latent_channels=3, latent_size=8, weights='a.pth'),
        process=dict(type='GaussianDiffusion'),
    )
    stored = model.stored_config(dict(generator=config))
    assert stored['generator']['network']['size'] == [1, 16, 2]
    assert 'weights' not in stored['generator']['network']
    assert stored['generator']['p_unconditional'] == 0.1  # a default is written out
    assert stored['latents']['scale'] == [0.5, 0.5, 0.5]


def test_resized_weights_are_named_in_the_description(tmp_path):
    torch.save(dit(num_classes=9).network.state_dict(), tmp_path / 'published.pt')
    given = dict(weights=str(tmp_path / 'published.pt'), adapt=('classes', 'grid'))
    model = GeneratorTraining(dit(**given), kl())
    assert model.describe()['adapted weights'] == 'y_embedder.embedding_table.weight (10, 16) -> (5, 16)'
    same = GeneratorTraining(dit(**{**given, 'num_classes': 9}), kl())
    assert same.describe()['adapted weights'] == 'none: all fit as they are'
    assert 'adapted weights' not in GeneratorTraining(dit(), kl()).describe()
