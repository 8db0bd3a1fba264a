"""Phases: one config that trains an autoencoder several times, each time from where the last one ended.

A config's `phases` has for each phase, by name and in order, the keys it changes: a regularised phase and then one of
the decoder alone, for instance. The last phase runs in the work directory, so that its result is in the same place as
without phases. Each earlier phase runs in a subfolder with the name of the phase.
"""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from torch.utils.data import Dataset

from eqzoo.config import set_key
from eqzoo.engine.checkpoints import latest_whole_checkpoint, step_of
from eqzoo.registry import argument_defaults
from eqzoo.schema import check_keys


class Phase(NamedTuple):
    """One phase.

    Args:
        name: Its name; empty in a config without phases.
        config: What it trains; all but the first get the weights of the one before when it is done.
        start: The checkpoint of the phase before, from which it starts; None for the first.
        keeps_discriminator: Whether the discriminator of the phase before goes on, too.
    """

    name: str
    config: Config
    start: Path | None = None
    keeps_discriminator: bool = False

    @property
    def result(self) -> Path:
        """The checkpoint that it ends with."""
        return Path(self.config.work_dir) / f'iter_{self.config.train_cfg.max_iters}.pth'

    def is_done(self) -> bool:
        """Return whether its last checkpoint is there and whole."""
        whole, _ = latest_whole_checkpoint(self.config.work_dir)
        return whole is not None and step_of(whole) >= self.config.train_cfg.max_iters

    def begin(self) -> None:
        """Point the config at the weights of the phase before; until then it has none."""
        if self.start is not None:
            self.config.model.autoencoder.weights = str(self.start)
        if self.keeps_discriminator:
            self.config.model.adversarial_loss.discriminator.weights = str(self.start)


def phases_of(config: Config, prepare: Callable[[Config], Config] = lambda config: config) -> list[Phase]:
    """Return the phases of `config`, one without a name if it has none.

    Args:
        config: A config of `load_config`.
        prepare: Changes each phase's config, as `shrink` does for a smoke run.

    Raises:
        ValueError: If `phases` is no dict of dicts, changes a key that is not there, or is of a generator.
    """
    changes = config.get('phases')
    if not changes:
        return [Phase('', prepare(config))]
    if not isinstance(changes, Mapping) or not all(isinstance(each, Mapping) for each in changes.values()):
        raise ValueError(
            'phases: expected the changed keys of each phase by its name, such as dict(regularise={}, decoder='
            f"{{'model.encoder_rate': 0.0}}), got {changes!r}."
        )
    if 'generator' in config.model:
        raise ValueError('phases: only training of autoencoders has phases; leave the key out.')
    found: list[Phase] = []
    for number, (name, changed) in enumerate(changes.items(), start=1):
        own = Config(copy.deepcopy(config.to_dict()), filename=config.filename)
        own.pop('phases')
        for key, value in changed.items():
            set_key(own, key, value, place=f'phases.{name}')
        check_keys(own)
        own = prepare(own)
        if number < len(changes):
            own.work_dir = str(Path(own.work_dir) / name)
        if not found:
            found.append(Phase(name, own))
            continue
        before = found[-1]
        own.model.autoencoder.weights = None
        found.append(
            Phase(name, own, before.result, _can_load(own) and _discriminator(own) == _discriminator(before.config))
        )
    return found


def _discriminator(config: Config) -> Mapping[str, Any] | None:
    """Return the config of the discriminator, without its weights."""
    discriminator = (config.model.get('adversarial_loss') or {}).get('discriminator')
    return discriminator and {key: value for key, value in discriminator.items() if key != 'weights'}


def _can_load(config: Config) -> bool:
    """Return whether there is a discriminator whose weights a checkpoint can give."""
    discriminator = _discriminator(config)
    return bool(discriminator) and 'weights' in argument_defaults(discriminator['type'])


def data_of_both(first: Config, second: Config, opened: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """Return those of the first config's opened data sets, by place, that the second one has at the same place."""
    return {where: data for where, data in opened.items() if first[where.split('.')[0]] == second[where.split('.')[0]]}
