"""Training against each discriminator, with penalties and augmentation: what a step does, and exact resume."""

import copy

import pytest
import torch

from eqzoo.config import load_config
from eqzoo.data import Shapes, collate
from eqzoo.engine import build_runner, read_checkpoint, shrink
from eqzoo.engine.resume import config_changes
from eqzoo.engine.runner import build_optimizers
from eqzoo.losses import DiscriminatorStep
from eqzoo.randomness import SampleStreams, StepRandomness, Stream
from eqzoo.registry import build

LEAF = 'configs/eqvae/sdxl_rot_scale_features.py'
CONVNEXT = dict(type='ConvNeXtDiscriminator', depths=(1, 1), widths=(8, 16))


def make(**adversarial):
    from mmengine.config import Config

    sgd = dict(optimizer=dict(type='SGD', lr=1e-3))
    config = Config(
        dict(
            model=dict(
                type='AutoencoderTraining',
                autoencoder=dict(
                    type='KLAutoencoder', block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4
                ),
                objective=dict(type='Plain'),
                reconstruction_loss=dict(type='ReconstructionLoss', pixel=dict(type='L1'), reduction='mean'),
                adversarial_loss=dict(type='AdversarialLoss', discriminator=CONVNEXT, **adversarial),
            ),
            optim_wrapper=dict(autoencoder=sgd, discriminator=sgd),
        )
    )
    torch.manual_seed(0)
    model = build(config.model).train()
    return model, build_optimizers(model, config)


@pytest.fixture
def batch():
    data = Shapes(num_images=4, size=32)
    return collate([data[index] for index in range(4)])


def test_the_discriminators_step_is_descent_on_its_loss_written_out(batch):
    """Hinge on augmented images, plus R1 on plain ones, plus LeCam about the averages of the step before."""
    penalties = [dict(type='R1', weight=3.0, every=2), dict(type='LeCam', weight=0.5, decay=0.5)]
    model, optimizers = make(penalties=penalties, augmentation=dict(type='DiffAug'))
    model.train_step(batch, optimizers, StepRandomness(0, 1))
    reference = copy.deepcopy(model.adversarial_loss)
    pairs = []
    original = model.adversarial_loss.discriminator_loss
    model.adversarial_loss.discriminator_loss = lambda *words: pairs.append(words[:2]) or original(*words)
    log = model.train_step(batch, optimizers, StepRandomness(0, 2))

    (fake, target), network = pairs[0], reference.discriminator
    r1, lecam = reference.penalties
    assert lecam.total == 0.5  # of one step
    streams = SampleStreams(0, batch['draws'], Stream.AUGMENTATION)
    augment = reference.augmentation
    augment.sample(streams)  # the autoencoder's update has drawn first
    real_logits = [network(augment(target, augment.sample(streams)))]
    fake_logits = [network(augment(fake, augment.sample(streams)))]
    state = DiscriminatorStep(lambda x: [network(x)], target, real_logits, fake_logits, 2)
    hinge = ((1 - real_logits[0]).relu().mean() + (1 + fake_logits[0]).relu().mean()) / 2
    loss = hinge + r1(state) + lecam(state)
    torch.testing.assert_close(log['discriminator_loss'], loss.detach())
    torch.testing.assert_close(log['r1'], r1(state).detach())
    torch.testing.assert_close(log['lecam'], lecam(state).detach())
    loss.backward()
    now = dict(model.adversarial_loss.discriminator.named_parameters())
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(now[name].data, parameter.data - 1e-3 * parameter.grad, msg=lambda text: text)
    torch.testing.assert_close(
        model.adversarial_loss.penalties[1].real, 0.5 * lecam.real + 0.5 * real_logits[0].detach().mean()
    )


def test_the_step_between_two_of_lazy_r1_has_none(batch):
    model, optimizers = make(penalties=[dict(type='R1', every=2)])
    logs = [model.train_step(batch, optimizers, StepRandomness(0, step)) for step in range(3)]
    assert ['r1' in log for log in logs] == [True, False, True]


def test_micro_batches_change_nothing_in_discriminators_without_statistics_of_batches(batch):
    """With a fixed weight: the adaptive one is of each micro-batch."""
    options = dict(
        adaptive=False,
        weight=1.0,
        penalties=[dict(type='R1'), dict(type='LeCam', weight=0.5)],
        augmentation=dict(type='DiffAug'),
    )
    whole, cut = make(**options), make(**options)
    cut[0].micro_batch_size = 1
    for step in range(3):
        for model, optimizers in (whole, cut):
            model.train_step(batch, optimizers, StepRandomness(0, step))
    for name, value in whole[0].state_dict().items():
        torch.testing.assert_close(cut[0].state_dict()[name], value, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: n)
    assert whole[0].adversarial_loss.penalties[1].total > 0


def test_a_resumed_run_has_the_same_bits_in_heads_and_averages(tmp_path, assert_same):
    words = ['val_dataloader=none', 'default_hooks.checkpoint.save_best=none', 'visualizer=none', 'custom_hooks={}']
    config = load_config('configs/demo/plain.py', [f'work_dir={tmp_path}', *words])
    leaf = load_config(LEAF)
    config.model.adversarial_loss = leaf.model.adversarial_loss
    config.optim_wrapper.discriminator = leaf.optim_wrapper.discriminator
    build_runner(shrink(config)).train()
    whole = read_checkpoint(tmp_path / 'iter_4.pth')
    (tmp_path / 'iter_4.pth').unlink()
    build_runner(shrink(config), resume=True).train()
    resumed = read_checkpoint(tmp_path / 'iter_4.pth')
    for part in ('state_dict', 'optimizer'):
        assert_same(resumed[part], whole[part], part)
    names = [name for name in whole['state_dict'] if name.startswith('adversarial_loss.penalty_1.')]
    assert {name.rpartition('.')[2] for name in names} == {'real', 'fake', 'total'}
    assert whole['state_dict']['adversarial_loss.penalty_1.total'] > 0
    assert not any('extractor' in name for name in whole['state_dict'])


@pytest.mark.parametrize(
    ('old', 'new', 'expected'),
    [
        (
            "dict(type='R1', weight=1.0)",
            "dict(type='R1', weight=2.0)",
            'applied model.adversarial_loss.penalties.0.weight',
        ),
        (
            "dict(type='R1', weight=1.0)",
            "dict(type='LeCam', weight=1.0)",
            'refused model.adversarial_loss.penalties.0.type',
        ),
        ("[dict(type='R1', weight=1.0)]", '[]', 'refused model.adversarial_loss.penalties'),
        ("augmentation=dict(type='DiffAug')", 'augmentation=None', 'applied model.adversarial_loss.augmentation'),
    ],
)
def test_what_a_resume_may_change_of_it(old, new, expected):
    text = (
        "model = dict(type='T', adversarial_loss=dict(type='AdversarialLoss', penalties=[dict(type='R1', weight=1.0)], "
        "augmentation=dict(type='DiffAug')))\ncustom_hooks = dict()\n"
    )
    (change,) = config_changes(text, text.replace(old, new))
    assert f'{change.rule.policy} {change.key}' == expected
