"""Plan of a study: shared stages appear once, and a changed key changes only the stages that depend on it."""

import ast
from pathlib import Path

import pytest

from eqzoo.studies import load_study, plan_study

STUDIES = sorted(str(path) for path in Path('configs/studies').glob('*.py'))


@pytest.mark.parametrize('path', STUDIES)
def test_every_study_has_a_plan_in_order(path, tmp_path):
    study = load_study(path)
    plan = plan_study(study, [0, 1], tmp_path)
    seen = set()
    for stage in plan.stages.values():
        assert {each.folder for each in stage.needs} <= seen, stage.name
        seen.add(stage.folder)
    assert set(plan.measured) == {(name, seed) for name in study.autoencoders for seed in (0, 1)}
    assert {generator for generator, *_ in plan.scored} == set(study.generators)


def test_both_sizes_are_the_same_studies():
    names = {Path(path).stem.rpartition('_')[::2] for path in STUDIES if path.endswith(('_shapes.py', '_cifar10.py'))}
    assert {name for name, _ in names} == {
        'autoencoders',
        'generators',
        'maskgit',
        'transforms',
        'explicit',
        'p',
        'scratch',
    }
    assert len(names) == 14
    for name in ('autoencoders', 'transforms'):
        shapes, cifar10 = (load_study(f'configs/studies/{name}_{size}.py') for size in ('shapes', 'cifar10'))
        assert list(shapes.autoencoders) == list(cifar10.autoencoders)
        assert (shapes.data, cifar10.data) == ('Shapes', 'CIFAR-10')
        configs = [{arm.config for arm in each.autoencoders.values()} for each in (shapes, cifar10)]
        assert not configs[0] & configs[1]


def test_studies_share_equal_stages(tmp_path):
    """Whatever the arms' names: 'plain' in `transforms` is 'KL' in `generators`."""
    transforms, generators = (
        plan_study(load_study(f'configs/studies/{name}_shapes.py'), [0], tmp_path)
        for name in ('transforms', 'generators')
    )
    shared = transforms.stages.keys() & generators.stages.keys()
    assert transforms.tuned['plain', 0] == generators.tuned['KL', 0]
    assert transforms.tuned['rotation + isotropic', 0] == generators.tuned['KL + EQ', 0]
    assert transforms.scored['DiT', 'plain', 0, 400].folder == generators.scored['DiT', 'KL', 0, 400].folder
    kinds = sorted(folder.name.split('-')[0] for folder in shared)
    # plain, rotation + scale, and its antialiased control
    assert kinds.count('generator') == kinds.count('tune') == 3
    assert kinds.count('start') == kinds.count('reference') == 1


def test_seeds_share_no_training(tmp_path):
    """The arms of a seed share its start and differ only in fine-tuning."""
    plan = plan_study(load_study('configs/studies/p_shapes.py'), [0, 1], tmp_path)
    kinds = [stage.folder.name.split('-')[0] for stage in plan.stages.values()]
    assert (kinds.count('start'), kinds.count('tune'), kinds.count('generator')) == (2, 8, 8)
    starts = [stage for stage in plan.stages.values() if stage.folder.name.startswith('start-')]
    assert [stage.commands[0].overrides[-1] for stage in starts] == ['seed=0', 'seed=1']
    for stage in plan.stages.values():
        if stage.folder.name.startswith('tune-'):
            (need,) = stage.needs
            assert need.name[-1] == stage.name[-1]  # the seed


@pytest.mark.parametrize(
    ('override', 'kinds'),
    [
        ('device=cpu', set()),
        ('sampling.num_samples=64', {'score', 'reference'}),
        ('test_dataloader.batch_size=7', {'measure'}),
        ('cache_dataloader.batch_size=7', {'latents', 'generator', 'score'}),
        ('optim_wrapper.generator.optimizer.lr=7', {'generator', 'score'}),
        (
            'optim_wrapper.autoencoder.optimizer.lr=7',
            {'start', 'tune', 'autoencoder', 'measure', 'latents', 'generator', 'score'},
        ),
    ],
)
def test_a_changed_key_changes_only_dependent_stages(override, kinds, tmp_path):
    study = load_study('configs/studies/p_shapes.py')
    before, after = plan_study(study, [0], tmp_path), plan_study(study, [0], tmp_path, [override])
    changed = {folder.name.split('-')[0] for folder in before.stages.keys() ^ after.stages.keys()}
    assert changed == kinds


def test_references_that_an_autoencoder_has_a_part_in_are_left_to_each_test(tmp_path):
    """The file of images' features is for evaluators that compare images, also if the others name another data set."""
    other = dict(type='Shapes', num_images=50, size=32, seed=9)
    sides = dict(extractor=dict(type='EfficientNetLite0', size=112))
    evaluators = [
        dict(type='GenerationMetric', **sides, reference=dict(other, seed=1), metrics=('fd',)),
        dict(type='GenerationMetric', **sides, reference=other, metrics=('fd',), against='reconstructions'),
        dict(type='GenerationLatentFrechet', reference=other),
        dict(type='GenerationSlicedWasserstein', reference=dict(other, seed=1)),
    ]
    plan = plan_study(load_study('configs/studies/p_shapes.py'), [0], tmp_path, [f'test_evaluators={evaluators!r}'])
    (reference,) = (stage for stage in plan.stages.values() if stage.folder.name.startswith('reference-'))
    file = str(reference.folder / 'reference.npz')
    score = next(stage for stage in plan.stages.values() if stage.folder.name.startswith('score-'))
    (word,) = (word for word in score.commands[0].overrides[-1:] if word.startswith('test_evaluators='))
    given = ast.literal_eval(word.removeprefix('test_evaluators='))
    assert [each['reference'] for each in given] == [file, other, other, file]


def test_commands_can_be_typed_by_a_user(tmp_path):
    plan = plan_study(load_study('configs/studies/maskgit_shapes.py'), [1], tmp_path)
    tuned = next(stage for stage in plan.stages.values() if stage.folder.name.startswith('tune-'))
    (command,) = tuned.commands
    start = next(stage for stage in plan.stages.values() if stage.folder.name.startswith('start-'))
    assert str(command) == (
        f'python -m eqzoo train configs/studies/shapes/vq.py work_dir={tuned.folder} resume=auto seed=1 '
        f'model.autoencoder.weights={start.folder}/iter_1800.pth'
    )


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('model = dict()', r'is not a study: it has no `study = dict\('),
        ("study = dict(title='t', autoencoders={}, generator={})", "no key 'generator'. Did you mean 'generators'"),
        ("study = dict(autoencoders={'a': dict(config='x')})", 'study.title is missing'),
        ("study = dict(title='t', autoencoders={'a': dict()})", r"autoencoders\['a'\] has no config"),
        (
            "study = dict(title='t', autoencoders={'plain': dict(config='x'), 'eq': dict(config='x', against='plan')})",
            "there is no 'plan'. Did you mean 'plain'",
        ),
        (
            "study = dict(title='t', autoencoders={'a': dict(config='x', generators=['DiT'])})",
            "there is no 'DiT'. There are: ",
        ),
        (
            "study = dict(title='t', autoencoders={'a': dict(config='x')}, generators={'g': dict(config='y', scores=(0.9, 0.3))})",
            r'scores must be .*, got \(0.9, 0.3\)',
        ),
        ('study = dict(', 'cannot be read: SyntaxError'),
    ],
)
def test_a_wrong_study_is_refused(content, message, tmp_path):
    (tmp_path / 'mine.py').write_text(content)
    with pytest.raises(ValueError, match=message):
        load_study(tmp_path / 'mine.py')


def test_scored_steps_have_checkpoints(tmp_path):
    study = load_study('configs/studies/generators_shapes.py')
    assert plan_study(study, [0], tmp_path).steps == dict.fromkeys(('DiT', 'SiT', 'REPA'), (100, 200, 300, 400))
    with pytest.raises(ValueError, match='keeps no checkpoint of step 125, after which DiT .* 125'):
        plan_study(study, [0], tmp_path, ['train_cfg.max_iters=500'])


def test_a_wrong_key_of_a_change_is_refused_by_the_plan(tmp_path):
    (tmp_path / 'mine.py').write_text(
        "study = dict(title='t', autoencoders={'a': dict(config='configs/studies/shapes/kl.py', "
        "change={'model.objectiv': 1})})"
    )
    with pytest.raises(ValueError, match="Did you mean 'objective'"):
        plan_study(load_study(tmp_path / 'mine.py'), [0], tmp_path)


def test_an_override_that_no_config_has_is_refused(tmp_path):
    study = load_study('configs/studies/p_shapes.py')
    with pytest.raises(ValueError, match="has no key 'sampler'.* 'sampler.steps=1'"):
        plan_study(study, [0], tmp_path, ['device=cpu', 'sampler.steps=1'])
