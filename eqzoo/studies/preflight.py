"""Preflight of a study: everything that its stages lack, in one message before any of them runs."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch.utils.data import Dataset

from eqzoo.config import KEYS, Config, load_config
from eqzoo.engine.evaluation import check_evaluators
from eqzoo.engine.phases import phases_of
from eqzoo.engine.preflight import COMPONENT_KEYS, missing_and_opened, missing_message
from eqzoo.engine.references import check_reference_sizes
from eqzoo.engine.runner import build_evaluators
from eqzoo.registry import Requirement
from eqzoo.studies.plan import StudyPlan
from eqzoo.studies.stages import StageCommand
from eqzoo.studies.study import Study

_TRAINING = tuple(key for key in COMPONENT_KEYS if KEYS[key].is_for_training)
# The keys of a config whose files a command needs: of an autoencoder's, of a generator's.
_KEYS = {
    'train': (_TRAINING, _TRAINING),
    'latent_stats': (('train_dataloader',), ()),
    'test': (('test_dataloader', 'test_evaluators'), ('test_evaluators', 'sampling')),
    'cache_latents': ((), ('cache_dataloader', 'cache_encoder')),
    'reference': ((), ('test_evaluators',)),
}


def missing_of(study: Study, plan: StudyPlan) -> str:
    """Return the message about all files that stages need, that are not there, and that no stage writes; '' if none.

    Raises:
        ValueError: For an unknown component, or an unknown or missing argument of one, with its config; for a
            reference of another size than a generator's images; or for images that are there and too few for an
            evaluator, or without the classes that it needs.
    """
    lacks: dict[tuple[str, Requirement], list[str]] = {}  # the configs, by place in them
    # equal parts once: opening images takes time
    checked: dict[tuple[str, str], tuple[list[tuple[str, Requirement]], dict[str, Dataset]]] = {}
    tested: set[tuple[tuple[str, str], ...]] = set()
    for command in [each for stage in plan.stages.values() if stage.record() is None for each in stage.commands]:
        for config in _configs(command):
            if 'generator' in config.model:
                check_reference_sizes(config)
            keys = _KEYS[command.tool]['generator' in config.model]
            parts = tuple((key, str(config.get(key))) for key in keys)
            try:
                for key, part in zip(keys, parts, strict=True):
                    if part not in checked:
                        checked[part] = missing_and_opened(config, [key])
                    for lack in checked[part][0]:
                        if not _is_made(lack[1], plan):
                            lacks.setdefault(lack, []).append(command.words[0])
                if 'test_evaluators' in keys and parts not in tested and not any(checked[part][0] for part in parts):
                    tested.add(parts)
                    _check_images(config, {place: each for part in parts for place, each in checked[part][1].items()})
            except ValueError as error:
                raise ValueError(f'{command.words[0]}: {error}') from error
    if not lacks:
        return ''
    places = []
    for (place, requirement), names in lacks.items():
        first, *others = dict.fromkeys(names)
        more = f' and {len(others)} more config{"s" if len(others) > 1 else ""}' if others else ''
        places.append((f'{place} of {first}{more}', requirement))
    closing = 'Nothing has been run. Put these in place, and run the same command again.'
    return missing_message(f'The study {study.name}', places, closing)


def _check_images(config: Config, opened: Mapping[str, Dataset]) -> None:
    """Refuse images that an evaluator will refuse, by tests of an autoencoder or by references of samples.

    Args:
        config: Of an autoencoder or a generator.
        opened: Its data sets, by place.
    """
    if 'generator' not in config.model:
        if images := opened.get('test_dataloader.dataset'):
            check_evaluators(build_evaluators(config.test_evaluators, opened, 'test_evaluators'), images)
        return
    for number, evaluator in enumerate(config.test_evaluators):
        place, least = f'test_evaluators[{number}].reference', evaluator.get('min_images')
        if place in opened and least is not None and len(opened[place]) < least:
            raise ValueError(
                f'{place}: {len(opened[place])} images, but test_evaluators[{number}].min_images is {least}; use more '
                'images, or set a smaller min_images for a number that is comparable at this number of images only.'
            )


def _configs(command: StageCommand) -> Iterator[Config]:
    """Yield the configs that a command reads; those of all phases if it trains in phases."""
    if command.tool in _KEYS:
        config = load_config(command.words[0], command.overrides)
        if command.tool == 'train':
            yield from (phase.config for phase in phases_of(config))
        else:
            yield config


def _is_made(requirement: Requirement, plan: StudyPlan) -> bool:
    """Return whether a stage writes the file that is required."""
    return any(folder in plan.stages for folder in Path(requirement.where).parents)
