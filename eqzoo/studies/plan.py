"""From a study to its stages: start → fine-tune → measure, normalise → latents → generator → scores."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from eqzoo import __version__
from eqzoo.config import Config, load_config
from eqzoo.studies.stages import Command, Stage, digest, override
from eqzoo.studies.study import AutoencoderArm, GeneratorArm, Study

# What of a config decides nothing about what is trained, and what decides what is measured.
_ASIDE = ('work_dir', 'resume', 'device', 'log_processor', 'visualizer')
_OF_TESTS = ('test_dataloader', 'test_evaluators', 'sampling')
# What of a generator's config decides its latents.
_OF_LATENTS = ('cache_dataloader', 'cache_encoder')
_STORE = 'store'
_NUM_MEASURED = 2000  # images whose latents are measured for their normalisation


@dataclass
class Plan:
    """All stages of a study, each after those that it needs.

    Args:
        stages: By folder, so that what several arms need is there once.
        measured: The stage that measures an autoencoder, by (autoencoder, seed).
        scored: The stage that scores a generator, by (generator, autoencoder, seed, step).
        tuned: The file of an autoencoder's weights, by (autoencoder, seed).
        steps: After which a generator is scored, by its name.
    """

    stages: dict[Path, Stage] = field(default_factory=dict)
    measured: dict[tuple[str, int], Stage] = field(default_factory=dict)
    scored: dict[tuple[str, str, int, int], Stage] = field(default_factory=dict)
    tuned: dict[tuple[str, int], Path] = field(default_factory=dict)
    steps: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def add(self, stage: Stage) -> Stage:
        """Add a stage, or return the same one that is there."""
        return self.stages.setdefault(stage.folder, stage)


def make_plan(study: Study, seeds: Iterable[int], root: Path, overrides: Iterable[str] = ()) -> Plan:
    """Return the stages of `study` over `seeds`, whose folders are in `root`.

    Args:
        study: The grid.
        seeds: Of starts, fine-tuning, generators and samples.
        root: Where all studies' stages are.
        overrides: `key=value` words for every config that has the key, such as device=cpu.

    Raises:
        ValueError: If a config or a key of it is wrong.
    """
    plan = Plan()
    maker = _Maker(plan, root, tuple(overrides))
    for seed in seeds:
        for autoencoder in study.autoencoders.values():
            maker.measure(autoencoder, seed)
        for autoencoder, generator in study.pairs():
            maker.score(autoencoder, generator, seed)
    maker.refuse_unknown()
    return plan


class _Maker:
    """Adds stages to a plan; each method returns the stage whose product it is about.

    Folders are named by config, seed and digest, not by what a study calls an arm: another may call it otherwise.
    """

    def __init__(self, plan: Plan, root: Path, overrides: tuple[str, ...]) -> None:
        self.plan, self.root, self.overrides = plan, root, overrides
        self.refusals: dict[str, list[ValueError]] = {each: [] for each in overrides}
        self.taken: set[str] = set()

    def start(self, arm: AutoencoderArm, seed: int) -> Stage | None:
        """Train what an autoencoder starts from."""
        if not arm.start:
            return None
        stem = f'start-{Path(arm.start).stem}-{seed}'
        return self._train(f'start of {arm.name}, seed {seed}', stem, arm.start, (override('seed', seed),))

    def tune(self, arm: AutoencoderArm, seed: int) -> Stage:
        """Fine-tune an autoencoder, keep its average alone in a file, and measure its latents."""
        start, stem = self.start(arm, seed), Path(arm.config).stem
        overrides = (override('seed', seed), *_changes(arm.change))
        if start is not None:
            overrides += (f'model.autoencoder.weights={_product(start)}',)
        name = f'fine-tuning of {arm.name}, seed {seed}'
        tuned = self._train(name, f'tune-{stem}-{seed}', arm.config, overrides, start)
        folder = self.root / f'autoencoder-{stem}-{seed}-{digest(str(tuned.folder), arm.normalization)}'
        file = folder / 'autoencoder.pth'
        commands = [Command('convert', (str(_product(tuned)), str(file)), (('to', 'eqzoo'),))]
        if arm.normalization is not None:
            options = (('normalization', arm.normalization), ('num_images', _NUM_MEASURED))
            words = (*_changes(arm.change), *self._known(arm.config))
            commands.append(Command('latent_stats', (arm.config, str(file)), options, words))
        self.plan.tuned[arm.name, seed] = file
        return self.plan.add(Stage(f'latents of {arm.name}, seed {seed}', folder, tuple(commands), (tuned,)))

    def measure(self, arm: AutoencoderArm, seed: int) -> None:
        """Test an autoencoder."""
        tuned = self.tune(arm, seed)
        words, file = (*_changes(arm.change), *self._known(arm.config)), str(self.plan.tuned[arm.name, seed])
        key = digest(file, _of_tests(_config(arm.config, words)))
        folder = self.root / f'measure-{Path(arm.config).stem}-{seed}-{key}'
        command = Command('test', (arm.config, file), (), (f'work_dir={folder}', *words))
        stage = self.plan.add(Stage(f'test of {arm.name}, seed {seed}', folder, (command,), (tuned,)))
        self.plan.measured[arm.name, seed] = stage

    def latents(self, arm: AutoencoderArm, generator: GeneratorArm, seed: int) -> Stage:
        """Write the latents that a generator learns from."""
        tuned = self.tune(arm, seed)
        overrides = (*self._of_generator(arm, generator, seed), *self._known(generator.config))
        config = _config(generator.config, overrides)
        flip = config.train_dataloader.dataset.get('flip', False)
        key = digest(str(tuned.folder), flip, *(_plain(config.get(key)) for key in _OF_LATENTS))
        folder = self.root / f'latents-{Path(arm.config).stem}-{seed}-{key}'
        command = Command('cache_latents', (generator.config,), (('out', str(folder / _STORE)),), overrides)
        name = f'latents of {arm.name} for {generator.name}, seed {seed}'
        return self.plan.add(Stage(name, folder, (command,), (tuned,), resumable=True))

    def score(self, arm: AutoencoderArm, generator: GeneratorArm, seed: int) -> None:
        """Train a generator on an autoencoder's latents and measure its samples after each of its steps."""
        store = self.latents(arm, generator, seed)
        name, stem = f'{generator.name} on {arm.name}, seed {seed}', f'{Path(generator.config).stem}-{seed}'
        overrides = (
            override('seed', seed),
            *self._of_generator(arm, generator, seed),
            f'train_dataloader.dataset.root={store.folder / _STORE}',
        )
        trained = self._train(name, f'generator-{stem}', generator.config, overrides, store)
        words = (*overrides, override('sampling.seed', seed), *self._known(generator.config))
        reference, measured = self.reference(generator, words)
        for step in self.steps(generator, words):
            key = digest(str(trained.folder), step, _of_tests(_config(generator.config, words)))
            folder = self.root / f'score-{stem}-{step}-{key}'
            checkpoint = str(trained.folder / f'iter_{step}.pth')
            command = Command('test', (generator.config, checkpoint), (), (f'work_dir={folder}', *words, *measured))
            stage = self.plan.add(Stage(f'test of {name}, step {step}', folder, (command,), (trained, *reference)))
            self.plan.scored[generator.name, arm.name, seed, step] = stage

    def steps(self, generator: GeneratorArm, words: tuple[str, ...]) -> tuple[int, ...]:
        """Return the steps after which a generator is measured, which must be such that its checkpoints are kept."""
        config = _config(generator.config, words)
        length, hook = config.train_cfg.max_iters, config.default_hooks.checkpoint
        steps = tuple(round(share * length) for share in generator.scores)
        kept = hook.get('keep_every')
        unkept = [step for step in steps[:-1] if not kept or step % kept or kept % hook.interval]
        if unkept:
            raise ValueError(
                f'{generator.config}: default_hooks.checkpoint keeps no checkpoint of step {unkept[0]}, after which '
                f'{generator.name} is to be measured; set interval and keep_every to a divisor of {steps[0]}.'
            )
        self.plan.steps[generator.name] = steps
        return steps

    def reference(self, generator: GeneratorArm, words: tuple[str, ...]) -> tuple[tuple[Stage, ...], tuple[str, ...]]:
        """Measure what samples are compared with, once for all; return that stage and the words that name its file."""
        evaluators = _config(generator.config, words).to_dict()['test_evaluators']
        data = [each for each in evaluators if isinstance(each.get('reference'), Mapping)]
        extractors = {digest(each['extractor']) for each in data if each.get('extractor')}
        if len({digest(each['reference']) for each in data}) != 1 or len(extractors) != 1:
            return (), ()  # files already, or several: each test measures for itself
        images = _config(generator.config, words).sampling.num_samples
        folder = self.root / f'reference-{digest(__version__, data[0]["reference"], sorted(extractors), images)}'
        file = folder / 'reference.npz'
        overrides = (*_changes(generator.change), *self._known(generator.config))
        command = Command('reference', (generator.config, str(file)), (('num_stored', images),), overrides)
        stage = self.plan.add(Stage('reference of samples', folder, (command,)))
        named = [{**each, 'reference': str(file)} if each in data else each for each in evaluators]
        return (stage,), (override('test_evaluators', named),)

    def _of_generator(self, arm: AutoencoderArm, generator: GeneratorArm, seed: int) -> tuple[str, ...]:
        """Return the words that put an autoencoder into a generator's config."""
        tuned = _config(arm.config, _changes(arm.change)).model.autoencoder.to_dict()
        tuned['weights'] = str(self.plan.tuned[arm.name, seed])
        return (override('model.autoencoder', tuned), *_changes(generator.change))

    def _train(self, name: str, stem: str, config: str, overrides: tuple[str, ...], *needs: Stage | None) -> Stage:
        overrides = (*overrides, *self._known(config))
        folder = self.root / f'{stem}-{digest(_of_training(_config(config, overrides)))}'
        command = Command('train', (config,), (), (f'work_dir={folder}', 'resume=auto', *overrides))
        return self.plan.add(Stage(name, folder, (command,), tuple(filter(None, needs)), resumable=True))

    def _known(self, config: str) -> tuple[str, ...]:
        """Return the study's overrides whose keys this config has: a generator has no perceptual loss."""
        found = []
        for each in self.overrides:
            try:
                _config(config, (each,))
            except ValueError as error:
                self.refusals[each].append(error)
                continue
            found.append(each)
        self.taken |= {*found}
        return tuple(found)

    def refuse_unknown(self) -> None:
        """Refuse an override that no config of the study takes.

        Raises:
            ValueError: With what the first of them said.
        """
        for each in self.overrides:
            if each not in self.taken:
                raise ValueError(f'{self.refusals[each][0]} (so it is in every config of this study: {each!r})')


def _product(stage: Stage) -> Path:
    """Return the checkpoint that a training stage ends with."""
    (command,) = stage.commands
    config = _config(command.words[0], command.overrides)
    return stage.folder / f'iter_{config.train_cfg.max_iters}.pth'


def _changes(change: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(override(key, _plain(value)) for key, value in change.items())


def _of_training(config: Any) -> dict[str, Any]:
    """Return what of a config decides what is trained, with eqzoo's version."""
    aside = (*_ASIDE, *_OF_TESTS, *_OF_LATENTS)
    return {'eqzoo': __version__, **{key: value for key, value in config.to_dict().items() if key not in aside}}


def _of_tests(config: Any) -> dict[str, Any]:
    """Return what of a config decides what a test measures of given weights."""
    return {'eqzoo': __version__, **{key: _plain(config.get(key)) for key in _OF_TESTS}}


def _plain(value: Any) -> Any:
    return value.to_dict() if hasattr(value, 'to_dict') else value


@lru_cache(maxsize=4096)
def _config(path: str, overrides: tuple[str, ...] = ()) -> Config:
    return load_config(path, overrides)
