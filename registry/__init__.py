"""The kinds of component, how they are found and how they are built; installed as `eqzoo.registry`."""

from eqzoo.registry.build import argument_defaults, build, check_config
from eqzoo.registry.contracts import EquivarianceTransform, Objective, Requirement
from eqzoo.registry.kinds import (
    AUTOENCODERS,
    DATASETS,
    EVALUATORS,
    EXTRACTORS,
    GENERATORS,
    HOOKS,
    KINDS,
    LOOPS,
    LOSSES,
    MODELS,
    TRANSFORMS,
    Kind,
    find,
)

__all__ = [
    'AUTOENCODERS',
    'DATASETS',
    'EVALUATORS',
    'EXTRACTORS',
    'GENERATORS',
    'HOOKS',
    'KINDS',
    'LOOPS',
    'LOSSES',
    'MODELS',
    'TRANSFORMS',
    'EquivarianceTransform',
    'Kind',
    'Objective',
    'Requirement',
    'argument_defaults',
    'build',
    'check_config',
    'find',
]
