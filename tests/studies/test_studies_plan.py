"""Plan of a study: shared stages appear once, and a changed key changes only the stages that depend on it."""

import ast
import re
from pathlib import Path

import pytest

from eqzoo.config import load_config
from eqzoo.studies import load_study, plan_study
from eqzoo.studies.preflight import missing_of

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
    arms = (*study.autoencoders.values(), *study.generators.values())
    starts = {arm.start for arm in study.autoencoders.values() if arm.start}
    assert {*plan.configs()} == {arm.config for arm in arms} | starts


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
            {'start', 'tune', 'autoencoder', 'measure', 'latents', 'generator', 'reconstructions', 'score'},
        ),
    ],
)
def test_a_changed_key_changes_only_dependent_stages(override, kinds, tmp_path):
    study = load_study('configs/studies/p_shapes.py')
    before, after = plan_study(study, [0], tmp_path), plan_study(study, [0], tmp_path, [override])
    changed = {folder.name.split('-')[0] for folder in before.stages.keys() ^ after.stages.keys()}
    assert changed == kinds


def test_reconstructions_are_measured_once_for_each_autoencoder(tmp_path):
    """By a stage, whatever generator and step; latents are left to each test. Images have a stage of their own."""
    other = dict(type='Shapes', num_images=50, size=32, seed=9)
    sides = dict(extractor=dict(type='EfficientNetLite0', size=112))
    evaluators = [
        dict(type='GenerationMetric', **sides, reference=dict(other, seed=1), metrics=('fd',)),
        dict(type='GenerationMetric', **sides, reference=other, metrics=('fd',), against='reconstructions'),
        dict(type='GenerationLatentFrechet', reference=other),
        dict(type='GenerationSlicedWasserstein', reference=dict(other, seed=1)),
    ]
    study = load_study('configs/studies/generators_shapes.py')
    plan = plan_study(study, [0, 1], tmp_path, [f'test_evaluators={evaluators!r}'])
    (reference,) = (stage for stage in plan.stages.values() if stage.folder.name.startswith('reference-'))
    measured = [stage for stage in plan.stages.values() if stage.folder.name.startswith('reconstructions-')]
    assert len(measured) == len(study.autoencoders) * 2
    for stage in measured:
        (command,) = stage.commands
        assert '--reconstructions seed=' not in str(command)  # the autoencoder alone decides
        assert f'{stage.folder}/reference.npz --reconstructions model.autoencoder=' in str(command).replace("'", '')
    for (_, autoencoder, seed, _), score in plan.scored.items():
        (word,) = (word for word in score.commands[0].overrides[-1:] if word.startswith('test_evaluators='))
        given = [each['reference'] for each in ast.literal_eval(word.removeprefix('test_evaluators='))]
        file = str(reference.folder / 'reference.npz')
        assert [given[0], *given[2:]] == [file, other, file]
        own = plan.stages[Path(given[1]).parent]
        assert own in score.needs
        assert own.needs[0].folder == plan.tuned[autoencoder, seed].parent


@pytest.fixture
def own(tmp_path):
    """A function that writes a study of one's own with the given text after two arms `kl`, and loads it."""

    def load(rest, arms="{'plain': kl, 'EQ': dict(**kl, against='plain')}"):
        (tmp_path / 'mine.py').write_text(
            'from mmengine.config import read_base\n\nwith read_base():\n'
            '    from eqzoo.configs._base_.studies.grid import dit, kl, kl_scratch, score, sit, vq\n\n'
            f"study = dict(title='t', size='shapes', score=score, generators={{'DiT': dit}}, autoencoders={arms}, {rest})"
        )
        return load_study(tmp_path / 'mine.py')

    return load


def test_generators_are_behind_all_gates_and_fine_tuning_behind_those_of_starts(own, tmp_path):
    study = own("gates=dict(base=dict(metric='psnr', at_least=1, of='start'))")
    plan = plan_study(study, [0, 1], tmp_path)
    behind = {
        folder.name.split('-')[0]: {each.of for each in plan.gated.get(folder, ())}
        for folder in plan.stages
        if '-start-' not in folder.name
    }
    trained = ('tune', 'autoencoder', 'measure')
    scored = ('latents', 'generator', 'reference', 'reconstructions', 'score')
    assert behind == {'start': set(), **{each: {'start'} for each in trained}, **{each: {'arm'} for each in scored}}
    # one start for both arms of a seed, exported, normalised and tested as they are
    first, second = (plan.started['plain', seed] for seed in (0, 1))
    assert [plan.started['EQ', seed] for seed in (0, 1)] == [first, second]
    assert first.folder != second.folder
    assert not {first.folder, first.needs[0].folder} & {*plan.gated}
    normalized = first.needs[0]
    assert normalized.needs[0].folder.name.startswith('start-')
    assert [command.tool for command in normalized.commands] == ['convert', 'latent_stats']
    assert normalized.commands[0].words[0] == str(normalized.needs[0].folder / 'iter_1800.pth')
    assert first.commands[0].words[1] == normalized.commands[0].words[1]
    without = plan_study(own(''), [0, 1], tmp_path)
    assert without.stages.keys() == {folder for folder in plan.stages if '-start-' not in folder.name}


def test_weights_that_a_config_names_are_a_start_too(own, tmp_path):
    gates = "gates=dict(base=dict(metric='psnr', at_least=1, of='start'))"
    named = "{'plain': dict(**kl_scratch, change={'model.autoencoder.weights': WEIGHTS})}"
    plan = plan_study(own(gates, named.replace('WEIGHTS', "['a.pth', 'b.pth']")), [0, 1], tmp_path)
    first, second = (plan.started['plain', seed] for seed in (0, 1))
    assert first is second
    convert = first.needs[0].commands[0]
    assert convert.words[0] == 'a.pth,b.pth'
    assert ('config', 'configs/studies/shapes/kl_scratch.py') in convert.options
    with pytest.raises(ValueError, match=r"gates\['base'\].of is start, and no autoencoder has one"):
        plan_study(own(gates, "{'plain': kl_scratch}"), [0], tmp_path)


def test_an_arm_may_have_fewer_seeds(own, tmp_path):
    study = own('', "{'plain': kl, 'EQ': dict(**kl, against='plain', seeds=2)}")
    plan = plan_study(study, [4, 5, 6], tmp_path)
    assert {*plan.measured} == {*(('plain', seed) for seed in (4, 5, 6)), ('EQ', 4), ('EQ', 5)}
    assert {(name, seed) for _, name, seed, _ in plan.scored} == {*plan.measured}


def test_the_result_of_phases_is_that_of_the_last(own, tmp_path):
    (tmp_path / 'phased.py').write_text(
        'from mmengine.config import read_base\n\nwith read_base():\n    from eqzoo.configs.studies.shapes.kl import *\n\n'
        "phases = dict(whole={}, decoder={'train_cfg.max_iters': 70})"
    )
    plan = plan_study(own('', f"{{'plain': {{**kl, 'config': '{tmp_path}/phased.py'}}}}"), [0], tmp_path)
    tuned = next(stage for stage in plan.stages.values() if stage.folder.name.startswith('tune-'))
    convert = plan.stages[plan.tuned['plain', 0].parent].commands[0]
    assert convert.words[0] == f'{tuned.folder}/iter_70.pth'


def test_everything_missing_is_one_message_and_what_stages_write_is_not_in_it(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # without data/, which the checkout may have
    study = load_study('configs/studies/autoencoders_cifar10.py')
    message = missing_of(study, plan_study(study, [0], tmp_path))
    assert message.startswith('The study autoencoders_cifar10 cannot run yet: 1 missing.')
    assert 'train_dataloader.dataset of configs/studies/cifar10/tiny_start.py and 5 more configs' in message
    assert 'test_evaluators[0].reference of configs/studies/cifar10/dit.py' in message
    assert 'looked for: data/cifar10_train.zip' in message
    assert 'Set root=PATH' in message
    named = "{'plain': dict(**kl_scratch, change={'model.autoencoder.weights': 'gone.pth'})}"
    study = own('', named)
    message = missing_of(study, plan_study(study, [0, 1], tmp_path))
    assert '1. weights of KLAutoencoder  (model.autoencoder of configs/studies/shapes/kl_scratch.py)' in message
    assert 'looked for: gone.pth' in message
    assert missing_of(own(''), plan_study(own(''), [0], tmp_path)) == ''


def test_an_unknown_component_is_named_with_its_config(own, tmp_path):
    study = own('', "{'plain': dict(**kl, change={'model.objective': dict(type='Plian')})}")
    with pytest.raises(ValueError, match=r"configs/studies/shapes/kl.py: .* 'Plian'. Did you mean 'Plain'"):
        missing_of(study, plan_study(study, [0], tmp_path))


@pytest.mark.parametrize(
    ('rest', 'message'),
    [
        ("gates=dict(a=dict(metric='psnr'))", r"gates\['a'\] must have at_least=NUMBER, .* got at_least=None"),
        ("gates=dict(a=dict(metric='psnr', at_least=2, at_most=1))", 'both in this order, got at_least=2, at_most=1'),
        ("gates=dict(a=dict(metric='psnr', at_least='1'))", "must have at_least=NUMBER, .* got at_least='1'"),
        ('gates=dict(a=dict(at_least=1))', r"gates\['a'\] has no metric"),
        ("gates=dict(a=dict(metric='psnr', atleast=1))", "no key 'atleast'. Did you mean 'at_least'"),
        ("gates=dict(a=dict(metric='psnr', at_least=1, of='star'))", r"of must be 'arm' or 'start', got 'star'"),
        ("gates=dict(a=dict(metric='psnr', at_least=1, to_control='minus'))", "or 'ratio', got 'minus'"),
        (
            "gates=dict(a=dict(metric='psnr', at_least=1, to_control='ratio', of='start'))",
            'to_control: a start has no control',
        ),
        ("gates=[dict(metric='psnr')]", 'study.gates: expected conditions by name'),
        ("criterion=dict(words='w', metric='fd')", 'criterion lacks of, better, seeds_agreeing, of_seeds'),
        (
            "criterion=dict(words='w', metric='fd', of='Dit', better='lower', seeds_agreeing=5, of_seeds=5)",
            "criterion.of: there is no 'Dit'. Did you mean 'DiT'",
        ),
        (
            "criterion=dict(words='w', metric='fd', of='DiT', better='less', seeds_agreeing=5, of_seeds=5)",
            "better must be 'lower' or 'higher', got 'less'",
        ),
        (
            "criterion=dict(words='w', metric='fd', of='DiT', better='lower', seeds_agreeing=6, of_seeds=5)",
            'from 1 to of_seeds, got 6 of 5',
        ),
        (
            "criterion=dict(words='', metric='fd', of='DiT', better='lower', seeds_agreeing=5, of_seeds=5)",
            'words must say it in a sentence',
        ),
        ("predictors='viv'", r"must be names of metrics, such as \('viv',\), got 'viv'"),
        ("predictors=dict(viv='↓')", r"predictors\['viv'\] must be 'lower' or 'higher', got '↓'"),
    ],
)
def test_wrong_gates_criteria_and_predictors_are_refused(own, rest, message):
    with pytest.raises(ValueError, match=message):
        own(rest)


@pytest.mark.parametrize(
    ('arms', 'message'),
    [
        ("{'a': dict(**kl, seeds=0)}", r"autoencoders\['a'\].seeds must be a number of seeds, 1 or more, got 0"),
        ("{'a': dict(**kl, seeds=2), 'b': dict(**kl, against='a', seeds=3)}", "at most 2, .* control 'a': .* got 3"),
        ("{'a': dict(**kl, seeds=2), 'b': dict(**kl, against='a')}", "at most 2, .* control 'a': .* got all"),
    ],
)
def test_seeds_without_a_control_are_refused(own, arms, message):
    with pytest.raises(ValueError, match=message):
        own('', arms)


def test_predictors_take_the_metrics_directions_or_those_that_are_given(own):
    assert own("predictors=('psnr', 'eq_err/scale', 'latent_std')").predictors == {
        'psnr': 'higher',
        'eq_err/scale': 'lower',
        'latent_std': '',
    }
    assert own("predictors=dict(latent_std='lower')").predictors == {'latent_std': 'lower'}


def test_a_study_that_confirms_another_has_seeds_of_its_own(own):
    assert [*own('first_seed=10').seeds(3)] == [10, 11, 12]
    assert [*own('').seeds(3)] == [0, 1, 2]


@pytest.mark.parametrize('first', ['-1', '1.5', "'2'", 'True'])
def test_a_first_seed_that_is_no_seed_is_refused(own, first):
    with pytest.raises(ValueError, match='study.first_seed must be a whole number, 0 or more, got'):
        own(f'first_seed={first}')


def test_seeds_of_the_confirming_study_were_used_by_no_other(tmp_path):
    first, confirming = (load_study(f'configs/studies/{name}_clothing.py') for name in ('eq', 'eq_halfway'))
    shared = {*plan_study(first, first.seeds(5), tmp_path).stages}
    shared &= {*plan_study(confirming, confirming.seeds(5), tmp_path).stages}
    # of real images, which no seed changes
    assert [re.sub('-[0-9a-f]+$', '', each.name) for each in shared] == ['reference']


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
        (
            "study = dict(title='t', autoencoders={'a': dict(config='x')}, score='recall_effnet_lite0')",
            "study.score must be .* lower values are better, .* got 'recall_effnet_lite0'",
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


@pytest.mark.parametrize(
    ('override', 'remedy'),
    [
        ('seed=5', 'first_seed` of the study'),
        ('sampling.seed=5', 'first_seed` of the study'),
        ('work_dir=x', '--work-dir'),
        ('resume=none', '--resume'),
    ],
)
def test_an_override_of_what_the_study_sets_everywhere_is_refused(override, remedy, tmp_path):
    study, key = load_study('configs/studies/p_shapes.py'), override.partition('=')[0]
    with pytest.raises(ValueError, match=f"Override '{override}': a study sets {key} in all its configs.*{remedy}"):
        plan_study(study, [0], tmp_path, [override])


def settings(plan):
    """Each (kind of stage, tool, config with its overrides) of a plan that reads a config."""
    return [
        (stage.folder.name.split('-')[0], command.tool, load_config(command.words[0], command.overrides))
        for stage in plan.stages.values()
        for command in stage.commands
        if command.tool != 'convert'
    ]


def test_weights_that_a_user_names_are_those_of_starts_alone(own, tmp_path):
    for arms, kind in (("{'plain': kl}", 'start'), ("{'plain': kl_scratch}", 'tune')):
        plan = plan_study(own('', arms), [0], tmp_path, ['model.autoencoder.weights=my.pth'])
        trained = [(kind, config) for kind, tool, config in settings(plan) if tool == 'train']
        weights = {each: config.model.autoencoder.get('weights') for each, config in trained}
        assert weights['generator'] == str(plan.tuned['plain', 0])
        assert weights[kind] == 'my.pth'
        assert [each for each, file in weights.items() if file == 'my.pth'] == [kind]
        others = [config for kind, tool, config in settings(plan) if tool in ('cache_latents', 'reference')]
        assert 'my.pth' not in {config.model.autoencoder.get('weights') for config in others}
    # nor does the card of an autoencoder's test name them, if it was fine-tuned from a start
    plan = plan_study(own('', "{'plain': kl}"), [0], tmp_path, ['model.autoencoder.weights=my.pth'])
    assert [config.model.autoencoder.get('weights') for kind, _, config in settings(plan) if kind == 'measure'] == [
        None
    ]


def test_an_architecture_that_a_user_sets_is_also_that_of_generators(own, tmp_path):
    plan = plan_study(own('', "{'plain': kl}"), [0], tmp_path, ['model.autoencoder.norm_num_groups=4'])
    autoencoders = [
        (config.model.autoencoder.norm_num_groups, config.model.autoencoder.get('weights'))
        for kind, _, config in settings(plan)
        if kind in ('start', 'tune', 'measure', 'latents', 'generator', 'score')
    ]
    assert {groups for groups, _ in autoencoders} == {4}
    assert (4, str(plan.tuned['plain', 0])) in autoencoders


def test_images_of_a_user_do_not_replace_the_latents(tmp_path):
    study = load_study('configs/studies/eq_clothing.py')
    places = [*(f'{each}_dataloader.dataset' for each in ('train', 'test', 'cache'))]
    places += [f'test_evaluators.{number}.reference' for number in range(4)]
    words = [f'{place}.{each}' for place in places for each in ('root=my.zip', 'below=none')]
    plan = plan_study(study, [0], tmp_path, words)
    stores = {stage.folder / 'store' for stage in plan.stages.values() if stage.folder.name.startswith('latents-')}
    roots = {config.train_dataloader.dataset.root for kind, _, config in settings(plan) if kind == 'generator'}
    assert roots == {*map(str, stores)}
    # all images are the user's
    text = '\n'.join(f'{kind} {config.to_dict()}' for kind, _, config in settings(plan))
    assert 'clothing_144' not in text
    assert "'below': 'clothing'" not in text
    # a data set in the place of the latents is refused nowhere, and reaches no generator
    whole = "train_dataloader.dataset={'type': 'ImageFolder', 'root': 'my.zip', 'size': 64}"
    datasets = {
        (kind, config.train_dataloader.dataset.type)
        for kind, tool, config in settings(plan_study(study, [0], tmp_path, [whole]))
        if tool == 'train'
    }
    assert datasets == {('start', 'ImageFolder'), ('tune', 'ImageFolder'), ('generator', 'LatentStore')}


def test_an_override_that_no_config_has_is_refused(tmp_path):
    study = load_study('configs/studies/p_shapes.py')
    with pytest.raises(ValueError, match="has no key 'sampler'.* 'sampler.steps=1'"):
        plan_study(study, [0], tmp_path, ['device=cpu', 'sampler.steps=1'])
