"""Plan of a study: its stages, from start and fine-tuning to latents, generator and scores."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from eqzoo import __version__
from eqzoo.config import Config, load_config
from eqzoo.studies.stages import Stage, StageCommand
from eqzoo.studies.study import AutoencoderArm, GeneratorArm, Study

# Keys of a config that affect no result; that affect tests, and not the training; that affect a generator's latents.
_IRRELEVANT_KEYS = ('work_dir', 'resume', 'device', 'log_processor', 'visualizer')
_TEST_KEYS = ('test_dataloader', 'test_evaluators', 'sampling')
_LATENT_KEYS = ('cache_dataloader', 'cache_encoder')
_STORE = 'store'
_NUM_MEASURED = 2000  # images for the normalisation of latents


@dataclass
class StudyPlan:
    """All stages of a study, each after those that it needs.

    Args:
        stages: By folder; arms that need the same stage share it.
        measured: The stage that tests an autoencoder, by (autoencoder, seed).
        scored: The stage that tests a generator, by (generator, autoencoder, seed, step).
        tuned: The file of an autoencoder's weights, by (autoencoder, seed).
        steps: The steps after which a generator is tested, by its name.
    """

    stages: dict[Path, Stage] = field(default_factory=dict)
    measured: dict[tuple[str, int], Stage] = field(default_factory=dict)
    scored: dict[tuple[str, str, int, int], Stage] = field(default_factory=dict)
    tuned: dict[tuple[str, int], Path] = field(default_factory=dict)
    steps: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def add(self, stage: Stage) -> Stage:
        """Add a stage; return it, or the equal one that the plan already has."""
        return self.stages.setdefault(stage.folder, stage)


def plan_study(study: Study, seeds: Iterable[int], root: Path, overrides: Iterable[str] = ()) -> StudyPlan:
    """Return the stages of `study` over `seeds`, with their folders in `root`.

    Args:
        study: The grid.
        seeds: Each one seeds starts, fine-tuning, generators and samples.
        root: The folder of all studies' stages.
        overrides: `key=value` words for all configs that have the key, such as device=cpu.

    Raises:
        ValueError: If a config or a key of it is wrong.
    """
    plan = StudyPlan()
    planner = _Planner(plan, root, tuple(overrides))
    for seed in seeds:
        for autoencoder in study.autoencoders.values():
            planner.measure(autoencoder, seed)
        for autoencoder, generator in study.pairs():
            planner.score(autoencoder, generator, seed)
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
        return self._train(f'start of {arm.name}, seed {seed}', stem, arm.start, (_override('seed', seed),))

    def tune(self, arm: AutoencoderArm, seed: int) -> Stage:
        """Fine-tune an autoencoder, write its averaged weights to a file, and measure its latents."""
        start, stem = self.start(arm, seed), Path(arm.config).stem
        overrides = (_override('seed', seed), *_changes(arm.change))
        if start is not None:
            overrides += (f'model.autoencoder.weights={_product(start)}',)
        name = f'fine-tuning of {arm.name}, seed {seed}'
        tuned = self._train(name, f'tune-{stem}-{seed}', arm.config, overrides, start)
        folder = self.root / f'autoencoder-{stem}-{seed}-{_short_hash(str(tuned.folder), arm.normalization)}'
        file = folder / 'autoencoder.pth'
        commands = [StageCommand('convert', (str(_product(tuned)), str(file)), (('to', 'eqzoo'),))]
        if arm.normalization is not None:
            options = (('normalization', arm.normalization), ('num_images', _NUM_MEASURED))
            words = (*_changes(arm.change), *self._known_overrides(arm.config))
            commands.append(StageCommand('latent_stats', (arm.config, str(file)), options, words))
        self.plan.tuned[arm.name, seed] = file
        return self.plan.add(Stage(f'latents of {arm.name}, seed {seed}', folder, tuple(commands), (tuned,)))

    def measure(self, arm: AutoencoderArm, seed: int) -> None:
        """Test an autoencoder."""
        tuned = self.tune(arm, seed)
        words, file = (*_changes(arm.change), *self._known_overrides(arm.config)), str(self.plan.tuned[arm.name, seed])
        key = _short_hash(file, _test_settings(_config(arm.config, words)))
        folder = self.root / f'measure-{Path(arm.config).stem}-{seed}-{key}'
        command = StageCommand('test', (arm.config, file), (), (f'work_dir={folder}', *words))
        stage = self.plan.add(Stage(f'test of {arm.name}, seed {seed}', folder, (command,), (tuned,)))
        self.plan.measured[arm.name, seed] = stage

    def latents(self, arm: AutoencoderArm, generator: GeneratorArm, seed: int) -> Stage:
        """Write the latents that a generator is trained on."""
        tuned = self.tune(arm, seed)
        overrides = (*self._generator_overrides(arm, generator, seed), *self._known_overrides(generator.config))
        config = _config(generator.config, overrides)
        flip = config.train_dataloader.dataset.get('flip', False)
        key = _short_hash(str(tuned.folder), flip, *(_plain(config.get(key)) for key in _LATENT_KEYS))
        folder = self.root / f'latents-{Path(arm.config).stem}-{seed}-{key}'
        command = StageCommand('cache_latents', (generator.config,), (('out', str(folder / _STORE)),), overrides)
        name = f'latents of {arm.name} for {generator.name}, seed {seed}'
        return self.plan.add(Stage(name, folder, (command,), (tuned,), resumable=True))

    def score(self, arm: AutoencoderArm, generator: GeneratorArm, seed: int) -> None:
        """Train a generator on an autoencoder's latents and test its samples after each of its steps."""
        store = self.latents(arm, generator, seed)
        name, stem = f'{generator.name} on {arm.name}, seed {seed}', f'{Path(generator.config).stem}-{seed}'
        overrides = (
            _override('seed', seed),
            *self._generator_overrides(arm, generator, seed),
            f'train_dataloader.dataset.root={store.folder / _STORE}',
        )
        trained = self._train(name, f'generator-{stem}', generator.config, overrides, store)
        words = (*overrides, _override('sampling.seed', seed), *self._known_overrides(generator.config))
        reference, measured = self.reference(generator, words)
        for step in self.steps(generator, words):
            key = _short_hash(str(trained.folder), step, _test_settings(_config(generator.config, words)))
            folder = self.root / f'score-{stem}-{step}-{key}'
            checkpoint = str(trained.folder / f'iter_{step}.pth')
            command = StageCommand(
                'test', (generator.config, checkpoint), (), (f'work_dir={folder}', *words, *measured)
            )
            stage = self.plan.add(Stage(f'test of {name}, step {step}', folder, (command,), (trained, *reference)))
            self.plan.scored[generator.name, arm.name, seed, step] = stage

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

    def reference(self, generator: GeneratorArm, words: tuple[str, ...]) -> tuple[tuple[Stage, ...], tuple[str, ...]]:
        """Measure the reference set of samples once; return the stage, and the overrides that use its file."""
        evaluators = _config(generator.config, words).to_dict()['test_evaluators']
        data = [each for each in evaluators if isinstance(each.get('reference'), Mapping) and _compares_images(each)]
        extractors = {_short_hash(each['extractor']) for each in data if each.get('extractor')}
        if len({_short_hash(each['reference']) for each in data}) != 1 or len(extractors) != 1:
            return (), ()  # a file, or several sets: each test reads or measures its own
        images = _config(generator.config, words).sampling.num_samples
        folder = self.root / f'reference-{_short_hash(__version__, data[0]["reference"], sorted(extractors), images)}'
        file = folder / 'reference.npz'
        overrides = (*_changes(generator.change), *self._known_overrides(generator.config))
        command = StageCommand('reference', (generator.config, str(file)), (('num_stored', images),), overrides)
        stage = self.plan.add(Stage('reference of samples', folder, (command,)))
        evaluators = [{**each, 'reference': str(file)} if each in data else each for each in evaluators]
        return (stage,), (_override('test_evaluators', evaluators),)

    def _generator_overrides(self, arm: AutoencoderArm, generator: GeneratorArm, seed: int) -> tuple[str, ...]:
        """Return the overrides that put an autoencoder into a generator's config."""
        tuned = _config(arm.config, _changes(arm.change)).model.autoencoder.to_dict()
        tuned['weights'] = str(self.plan.tuned[arm.name, seed])
        return (_override('model.autoencoder', tuned), *_changes(generator.change))

    def _train(self, name: str, stem: str, config: str, overrides: tuple[str, ...], *needs: Stage | None) -> Stage:
        overrides = (*overrides, *self._known_overrides(config))
        folder = self.root / f'{stem}-{_short_hash(_training_settings(_config(config, overrides)))}'
        command = StageCommand('train', (config,), (), (f'work_dir={folder}', 'resume=auto', *overrides))
        return self.plan.add(Stage(name, folder, (command,), tuple(filter(None, needs)), resumable=True))

    def _known_overrides(self, config: str) -> tuple[str, ...]:
        """Return those of the study's overrides whose keys this config has: a generator has no perceptual loss."""
        found = []
        for each in self.overrides:
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
    """Return the last checkpoint of a training stage."""
    (command,) = stage.commands
    config = _config(command.words[0], command.overrides)
    return stage.folder / f'iter_{config.train_cfg.max_iters}.pth'


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
