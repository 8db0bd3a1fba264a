"""Plan of a study: its stages, from start and fine-tuning to latents, generator and scores."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from eqzoo import __version__
from eqzoo.config import Config, load_config
from eqzoo.engine.phases import phases_of
from eqzoo.studies.stages import Stage, StageCommand
from eqzoo.studies.study import AutoencoderArm, GeneratorArm, Study

# Keys of a config that affect no result; that affect tests, and not the training; that affect a generator's latents.
_IRRELEVANT_KEYS = ('work_dir', 'resume', 'device', 'log_processor', 'visualizer')
_TEST_KEYS = ('test_dataloader', 'test_evaluators', 'sampling')
_LATENT_KEYS = ('cache_dataloader', 'cache_encoder')
# Keys that the study sets in every config, with what sets them; and patterns of those that it sets in the config of a
# generator, or of an autoencoder with a start.
_STUDY_KEYS = {
    'seed': '`first_seed` of the study and --seeds set it',
    'sampling.seed': '`first_seed` of the study and --seeds set it',
    'work_dir': '--work-dir is the folder of all stages',
    'resume': '--resume continues the study',
}
_SET_IN_GENERATORS = re.compile(r'model|model\.autoencoder(\..*)?|train_dataloader(\.dataset(\.root)?)?')
_SET_WITH_START = re.compile(r'model\.autoencoder\.weights(\..*)?')
# Names in the folders of stages.
_STORE, _AUTOENCODER, _REFERENCE = 'store', 'autoencoder.pth', 'reference.npz'
_NUM_MEASURED = 2000  # images for the normalisation of latents


class Gated(NamedTuple):
    """The gates that a stage is behind: those of an autoencoder and a seed, or those of a seed's starts alone."""

    of: Literal['arm', 'start']
    autoencoder: str
    seed: int


@dataclass
class StudyPlan:
    """All stages of a study, each after those that it needs.

    Args:
        stages: By folder; arms that need the same stage share it.
        gated: By folder: for whom a stage is run, and so whose gates decide. One that is open suffices.
        started: The stage that tests the start of an autoencoder, by (autoencoder, seed), where a gate is of starts.
        measured: The stage that tests an autoencoder, by (autoencoder, seed).
        scored: The stage that tests a generator, by (generator, autoencoder, seed, step).
        tuned: The file of an autoencoder's weights, by (autoencoder, seed).
        steps: The steps after which a generator is tested, by its name.
    """

    stages: dict[Path, Stage] = field(default_factory=dict)
    gated: dict[Path, set[Gated]] = field(default_factory=dict)
    started: dict[tuple[str, int], Stage] = field(default_factory=dict)
    measured: dict[tuple[str, int], Stage] = field(default_factory=dict)
    scored: dict[tuple[str, str, int, int], Stage] = field(default_factory=dict)
    tuned: dict[tuple[str, int], Path] = field(default_factory=dict)
    steps: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def configs(self) -> list[str]:
        """Return the config files of all stages."""
        commands = [each for stage in self.stages.values() for each in stage.commands if each.tool != 'convert']
        return [*dict.fromkeys(command.words[0] for command in commands)]

    def add(self, stage: Stage, gated: Gated | None = None) -> Stage:
        """Add a stage, behind gates or none; return it, or the equal one that the plan already has."""
        if gated is not None:
            self.gated.setdefault(stage.folder, set()).add(gated)
        return self.stages.setdefault(stage.folder, stage)


def plan_study(study: Study, seeds: Iterable[int], root: Path, overrides: Iterable[str] = ()) -> StudyPlan:
    """Return the stages of `study` over `seeds`, with their folders in `root`.

    Args:
        study: The grid.
        seeds: Each one seeds starts, fine-tuning, generators and samples.
        root: The folder of all studies' stages.
        overrides: `key=value` words for all configs that have the key, such as device=cpu. They replace what arms
            change, and not what the study itself sets: the weights of a start, and a generator's autoencoder and
            latent store.

    Raises:
        ValueError: If a config or a key of it is wrong; if an override sets what the study sets in every config; or if
            there is a gate of starts, and no start.
    """
    plan, seeds, overrides = StudyPlan(), list(seeds), tuple(overrides)
    for each in overrides:
        if (key := each.partition('=')[0]) in _STUDY_KEYS:
            raise ValueError(
                f'Override {each!r}: a study sets {key} in all its configs, so it cannot be overridden; '
                f'{_STUDY_KEYS[key]}.'
            )
    planner = _Planner(plan, root, overrides)
    of_starts = [gate.name for gate in study.gates.values() if gate.of == 'start']
    for seed in seeds:
        arms = [arm for arm in study.autoencoders.values() if seed in arm.seeds_of(seeds)]
        for autoencoder in arms if of_starts else []:
            planner.measure_start(autoencoder, seed)
        for autoencoder in arms:
            planner.measure(autoencoder, seed)
        for autoencoder, generator in study.pairs():
            if autoencoder in arms:
                planner.score(autoencoder, generator, seed)
    if of_starts and not plan.started:
        raise ValueError(
            f'study.gates[{of_starts[0]!r}].of is start, and no autoencoder has one: all are trained from scratch; '
            'give one a start=CONFIG or weights, or leave the gate out.'
        )
    planner.refuse_unknown()
    return plan


class _Planner:
    """Adds stages to a plan.

    Folders are named by config, seed and hash, not by the arm's name, which may be another in another study.
    """

    def __init__(self, plan: StudyPlan, root: Path, overrides: tuple[str, ...]) -> None:
        self.plan, self.root, self.overrides = plan, root, overrides
        self.refusals: dict[str, list[ValueError]] = {each: [] for each in overrides}
        self.used: set[str] = set()

    def start(self, arm: AutoencoderArm, seed: int) -> Stage | None:
        """Train the start of an autoencoder's fine-tuning, if it has one."""
        if not arm.start:
            return None
        stem = f'start-{Path(arm.start).stem}-{seed}'
        overrides = (_override('seed', seed), *self._known_overrides(arm.start))
        return self._train(f'start of {arm.name}, seed {seed}', stem, arm.start, overrides)

    def tune(self, arm: AutoencoderArm, seed: int) -> Stage:
        """Fine-tune an autoencoder, write its averaged weights to a file, and measure its latents."""
        start, stem = self.start(arm, seed), Path(arm.config).stem
        overrides = (_override('seed', seed), *self._words(arm))
        if start is not None:
            overrides += (f'model.autoencoder.weights={_product(start)}',)
        name, gated = f'fine-tuning of {arm.name}, seed {seed}', Gated('start', arm.name, seed)
        tuned = self._train(name, f'tune-{stem}-{seed}', arm.config, overrides, start, gated=gated)
        folder = self.root / f'autoencoder-{stem}-{seed}-{_short_hash(str(tuned.folder), arm.normalization)}'
        self.plan.tuned[arm.name, seed] = folder / _AUTOENCODER
        commands = self._normalized(arm, str(_product(tuned)), folder)
        return self.plan.add(Stage(f'latents of {arm.name}, seed {seed}', folder, commands, (tuned,)), gated)

    def _normalized(
        self, arm: AutoencoderArm, weights: str, folder: Path, architecture: str | None = None
    ) -> tuple[StageCommand, ...]:
        """Return the commands that write the averaged weights of a file to `folder` and measure their latents."""
        file, options = str(folder / _AUTOENCODER), (('to', 'eqzoo'),)
        options += (('config', architecture),) if architecture is not None else ()
        commands = [StageCommand('convert', (weights, file), options)]
        if arm.normalization is not None:
            options = (('normalization', arm.normalization), ('num_images', _NUM_MEASURED))
            commands.append(StageCommand('latent_stats', (arm.config, file), options, self._words(arm)))
        return tuple(commands)

    def _words(self, arm: AutoencoderArm) -> tuple[str, ...]:
        """Return the overrides of an autoencoder's config: what its arm changes, and those of the study."""
        known = self._known_overrides(arm.config, _SET_WITH_START if arm.start else None)
        return (*_changes(arm.change), *known)

    def measure_start(self, arm: AutoencoderArm, seed: int) -> None:
        """Test what an autoencoder's fine-tuning starts from, as the autoencoder itself, if it starts from anything.

        Its latents are normalised as the autoencoder's will be.
        """
        start, words = self.start(arm, seed), self._words(arm)
        config = _config(arm.config, words)
        weights = str(_product(start)) if start is not None else config.model.autoencoder.get('weights')
        if not weights:
            return
        weights = weights if isinstance(weights, str) else ','.join(map(str, weights))
        # weights that the config names are the same for all seeds
        name = f'start of {arm.name}{f", seed {seed}" if start is not None else ""}'
        stem = f'{Path(arm.start).stem}-{seed}' if start is not None else Path(arm.config).stem
        key = _short_hash(__version__, weights, arm.normalization, _plain(config.train_dataloader))
        folder = self.root / f'autoencoder-start-{stem}-{key}'
        commands = self._normalized(arm, weights, folder, None if start is not None else arm.config)
        stage = Stage(f'latents of the {name}', folder, commands, (start,) if start is not None else ())
        normalized = self.plan.add(stage)
        folder = self.root / f'measure-start-{stem}-{_short_hash(str(folder), _test_settings(config))}'
        self.plan.started[arm.name, seed] = self._test(f'test of the {name}', arm, folder, normalized)

    def measure(self, arm: AutoencoderArm, seed: int) -> None:
        """Test an autoencoder."""
        tuned = self.tune(arm, seed)
        key = _short_hash(str(self.plan.tuned[arm.name, seed]), _test_settings(_config(arm.config, self._words(arm))))
        folder = self.root / f'measure-{Path(arm.config).stem}-{seed}-{key}'
        gated = Gated('start', arm.name, seed)
        self.plan.measured[arm.name, seed] = self._test(f'test of {arm.name}, seed {seed}', arm, folder, tuned, gated)

    def _test(
        self, name: str, arm: AutoencoderArm, folder: Path, normalized: Stage, gated: Gated | None = None
    ) -> Stage:
        """Test the autoencoder that a stage has written."""
        words = f'work_dir={folder}', *self._words(arm)
        command = StageCommand('test', (arm.config, str(normalized.folder / _AUTOENCODER)), (), words)
        return self.plan.add(Stage(name, folder, (command,), (normalized,)), gated)

    def latents(self, arm: AutoencoderArm, generator: GeneratorArm, seed: int) -> Stage:
        """Write the latents that a generator is trained on."""
        tuned = self.tune(arm, seed)
        overrides = self._generator_overrides(arm, generator, seed)
        config = _config(generator.config, overrides)
        flip = config.train_dataloader.dataset.get('flip', False)
        key = _short_hash(str(tuned.folder), flip, *(_plain(config.get(key)) for key in _LATENT_KEYS))
        folder = self.root / f'latents-{Path(arm.config).stem}-{seed}-{key}'
        command = StageCommand('cache_latents', (generator.config,), (('out', str(folder / _STORE)),), overrides)
        name = f'latents of {arm.name} for {generator.name}, seed {seed}'
        return self.plan.add(Stage(name, folder, (command,), (tuned,), resumable=True), Gated('arm', arm.name, seed))

    def score(self, arm: AutoencoderArm, generator: GeneratorArm, seed: int) -> None:
        """Train a generator on an autoencoder's latents and test its samples after each of its steps."""
        store = self.latents(arm, generator, seed)
        name, stem = f'{generator.name} on {arm.name}, seed {seed}', f'{Path(generator.config).stem}-{seed}'
        overrides = (
            _override('seed', seed),
            *self._generator_overrides(arm, generator, seed),
            f'train_dataloader.dataset.root={store.folder / _STORE}',
        )
        gated = Gated('arm', arm.name, seed)
        trained = self._train(name, f'generator-{stem}', generator.config, overrides, store, gated=gated)
        words = (*overrides, _override('sampling.seed', seed))
        references, measured = self.references(arm, generator, seed, words)
        for step in self.steps(generator, words):
            key = _short_hash(str(trained.folder), step, _test_settings(_config(generator.config, words)))
            folder = self.root / f'score-{stem}-{step}-{key}'
            checkpoint = str(trained.folder / f'iter_{step}.pth')
            command = StageCommand(
                'test', (generator.config, checkpoint), (), (f'work_dir={folder}', *words, *measured)
            )
            stage = Stage(f'test of {name}, step {step}', folder, (command,), (trained, *references))
            self.plan.scored[generator.name, arm.name, seed, step] = self.plan.add(stage, gated)

    def steps(self, generator: GeneratorArm, words: tuple[str, ...]) -> tuple[int, ...]:
        """Return the steps after which a generator is tested.

        Raises:
            ValueError: If its config does not keep the checkpoints of these steps.
        """
        config = _config(generator.config, words)
        length, hook = config.train_cfg.max_iters, config.default_hooks.checkpoint
        steps = tuple(round(share * length) for share in generator.scores)
        kept = hook.get('keep_every')
        unkept = [step for step in steps[:-1] if not kept or step % kept or kept % hook.interval]
        if unkept:
            raise ValueError(
                f'{generator.config}: default_hooks.checkpoint keeps no checkpoint of step {unkept[0]}, after which '
                f'{generator.name} is tested; set interval and keep_every to a divisor of {steps[0]}.'
            )
        self.plan.steps[generator.name] = steps
        return steps

    def references(
        self, arm: AutoencoderArm, generator: GeneratorArm, seed: int, words: tuple[str, ...]
    ) -> tuple[tuple[Stage, ...], tuple[str, ...]]:
        """Measure the reference of samples once, and its reconstructions once for each autoencoder.

        Returns:
            The stages, and the overrides of a generator's test that use their files.
        """
        evaluators = _config(generator.config, words).to_dict()['test_evaluators']
        images = _config(generator.config, words).sampling.num_samples
        gated = Gated('arm', arm.name, seed)
        stages, given = [], list(evaluators)
        data = [each for each in evaluators if isinstance(each.get('reference'), Mapping)]
        of_images = [each for each in data if _compares_images(each)]
        if (extractor := _only_features(of_images)) is not None:
            folder = self.root / f'reference-{_short_hash(__version__, of_images[0]["reference"], extractor, images)}'
            overrides, options = self._generator_words(generator), (('num_stored', images),)
            command = StageCommand('reference', (generator.config, str(folder / _REFERENCE)), options, overrides)
            stages.append(self.plan.add(Stage('reference of samples', folder, (command,)), gated))
            given = _with_file(given, of_images, folder)
        of_reconstructions = [each for each in data if each.get('against') == 'reconstructions']
        if (extractor := _only_features(of_reconstructions)) is not None:
            tuned, reference = self.tune(arm, seed), of_reconstructions[0]['reference']
            key = _short_hash(__version__, str(tuned.folder), reference, extractor)
            folder = self.root / f'reconstructions-{Path(arm.config).stem}-{seed}-{key}'
            overrides = self._generator_overrides(arm, generator, seed)
            options = (('reconstructions', True),)
            command = StageCommand('reference', (generator.config, str(folder / _REFERENCE)), options, overrides)
            name = f'reconstructions by {arm.name}, seed {seed}'
            stages.append(self.plan.add(Stage(name, folder, (command,), (tuned,)), gated))
            given = _with_file(given, of_reconstructions, folder)
        return tuple(stages), (_override('test_evaluators', given),) if stages else ()

    def _generator_overrides(self, arm: AutoencoderArm, generator: GeneratorArm, seed: int) -> tuple[str, ...]:
        """Return the overrides of a generator's config, with those that put an autoencoder into it."""
        tuned = _config(arm.config, self._words(arm)).model.autoencoder.to_dict()
        tuned['weights'] = str(self.plan.tuned[arm.name, seed])
        return (_override('model.autoencoder', tuned), *self._generator_words(generator))

    def _generator_words(self, generator: GeneratorArm) -> tuple[str, ...]:
        """Return what a generator's arm changes, and the study's overrides of keys that the study does not set."""
        known = self._known_overrides(generator.config, _SET_IN_GENERATORS)
        return (*_changes(generator.change), *known)

    def _train(
        self,
        name: str,
        stem: str,
        config: str,
        overrides: tuple[str, ...],
        *needs: Stage | None,
        gated: Gated | None = None,
    ) -> Stage:
        folder = self.root / f'{stem}-{_short_hash(_training_settings(_config(config, overrides)))}'
        command = StageCommand('train', (config,), (), (f'work_dir={folder}', 'resume=auto', *overrides))
        return self.plan.add(Stage(name, folder, (command,), tuple(filter(None, needs)), resumable=True), gated)

    def _known_overrides(self, config: str, set_here: re.Pattern[str] | None = None) -> tuple[str, ...]:
        """Return those of the study's overrides whose keys this config has: a generator has no perceptual loss.

        Args:
            config: Its path.
            set_here: The keys that the study sets in it, whose overrides are left out; None if there are none.
        """
        found = []
        for each in self.overrides:
            if set_here is not None and set_here.fullmatch(each.partition('=')[0]):
                continue
            try:
                _config(config, (each,))
            except ValueError as error:
                self.refusals[each].append(error)
                continue
            found.append(each)
        self.used |= {*found}
        return tuple(found)

    def refuse_unknown(self) -> None:
        """Check that each override was used by some config.

        Raises:
            ValueError: If not, with the first config's error.
        """
        for each in self.overrides:
            if each not in self.used:
                raise ValueError(f'{self.refusals[each][0]} (no config of this study has the key of {each!r})')


def _product(stage: Stage) -> Path:
    """Return the last checkpoint of a training stage, of its last phase if it has several."""
    (command,) = stage.commands
    return phases_of(_config(command.words[0], command.overrides))[-1].result


def _changes(change: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(_override(key, _plain(value)) for key, value in change.items())


def _training_settings(config: Any) -> dict[str, Any]:
    """Return the part of a config that affects the training, with eqzoo's version."""
    others = (*_IRRELEVANT_KEYS, *_TEST_KEYS, *_LATENT_KEYS)
    return {'eqzoo': __version__, **{key: value for key, value in config.to_dict().items() if key not in others}}


def _compares_images(evaluator: Mapping[str, Any]) -> bool:
    """Whether an evaluator of samples compares them with the reference's images, whatever the autoencoder.

    References that an autoencoder encodes or reconstructs are measured by each test.
    """
    name = getattr(evaluator['type'], '__name__', evaluator['type'])
    return name != 'GenerationLatentFrechet' and evaluator.get('against', 'images') == 'images'


def _only_features(evaluators: Iterable[Mapping[str, Any]]) -> Any:
    """Return the extractor of evaluators whose references are one data set on one extractor; otherwise None.

    Each test then reads or measures its own references.
    """
    references = {_short_hash(each['reference']) for each in evaluators}
    extractors = {_short_hash(each['extractor']): each['extractor'] for each in evaluators if each.get('extractor')}
    return next(iter(extractors.values())) if len(references) == len(extractors) == 1 else None


def _with_file(
    evaluators: Iterable[Mapping[str, Any]], measured: Iterable[Mapping[str, Any]], folder: Path
) -> list[Mapping[str, Any]]:
    """Return evaluators, those of `measured` with a stage's file for their reference."""
    file = str(folder / _REFERENCE)
    return [{**each, 'reference': file} if each in measured else each for each in evaluators]


def _test_settings(config: Any) -> dict[str, Any]:
    """Return the part of a config that affects a test of given weights, with eqzoo's version."""
    return {'eqzoo': __version__, **{key: _plain(config.get(key)) for key in _TEST_KEYS}}


def _override(key: str, value: Any) -> str:
    """Return the word that sets `key` on a command line."""
    return f'{key}={value!r}' if not isinstance(value, str) else f'{key}={value}'


def _short_hash(*parts: Any) -> str:
    """Return eight hexadecimal digits of plain data, classes and functions."""
    text = json.dumps(parts, sort_keys=True, default=_hashable)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _hashable(value: Any) -> Any:
    if callable(value) and hasattr(value, '__qualname__'):
        return f'{value.__module__}.{value.__qualname__}'
    if isinstance(value, tuple | set | frozenset):
        return sorted(value, key=str)
    return str(value)


def _plain(value: Any) -> Any:
    return value.to_dict() if hasattr(value, 'to_dict') else value


@lru_cache(maxsize=4096)
def _config(path: str, overrides: tuple[str, ...] = ()) -> Config:
    return load_config(path, overrides)
