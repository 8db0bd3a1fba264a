"""Preflight of a study: everything that its stages lack, in one message before any of them runs."""

from collections.abc import Iterator
from pathlib import Path

from eqzoo.config import KEYS, Config, load_config
from eqzoo.engine.phases import phases_of
from eqzoo.engine.preflight import COMPONENT_KEYS, missing, missing_message
from eqzoo.engine.references import check_reference_sizes
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
        ValueError: For an unknown component, or an unknown or missing argument of one, with its config; or for a
            reference of another size than a generator's images.
    """
    lacks: dict[tuple[str, Requirement], list[str]] = {}  # the configs, by place in them
    checked: dict[tuple[str, str], list[tuple[str, Requirement]]] = {}  # equal parts once: opening images takes time
    for command in [each for stage in plan.stages.values() if stage.record() is None for each in stage.commands]:
        for config in _configs(command):
            if 'generator' in config.model:
                check_reference_sizes(config)
            for key in _KEYS[command.tool]['generator' in config.model]:
                part = key, str(config.get(key))
                if part not in checked:
                    try:
                        checked[part] = missing(config, [key])
                    except ValueError as error:
                        raise ValueError(f'{command.words[0]}: {error}') from error
                for lack in checked[part]:
                    if not _is_made(lack[1], plan):
                        lacks.setdefault(lack, []).append(command.words[0])
    if not lacks:
        return ''
    places = []
    for (place, requirement), names in lacks.items():
        first, *others = dict.fromkeys(names)
        more = f' and {len(others)} more config{"s" if len(others) > 1 else ""}' if others else ''
        places.append((f'{place} of {first}{more}', requirement))
    closing = 'Nothing has been run. Put these in place, and run the same command again.'
    return missing_message(f'The study {study.name}', places, closing)


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
