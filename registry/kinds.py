"""Registries: one for each kind of component, children of mmengine's."""

import re
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

from eqzoo.registry.build import KINDS, build_in
from eqzoo.registry.light import Registry, root
from eqzoo.registry.ranges import checks_arguments


class Kind(Registry):
    """A registry of one kind of component.

    It differs from mmengine's `Registry` in four ways. Names are unique over all kinds, so that nested configs need not
    state the kind. `build` builds nested configs from the inside out. The error for an unknown name suggests the
    nearest one. A registered class checks its constructor's arguments by their annotations (`eqzoo.registry.ranges`).

    Args:
        name: One component of this kind, in the words of messages: `'transform'`.
        parent: mmengine's root registry of the same kind, if it has one.
        locations: Modules whose import registers eqzoo's own components of this kind.
        rare: A pattern of names, and the module that registers these. Its import takes seconds, and waits for such a
            name.
    """

    def __init__(
        self,
        name: str,
        parent: Registry | None = None,
        *,
        locations: Sequence[str] = (),
        rare: tuple[re.Pattern[str], str] | None = None,
    ) -> None:
        super().__init__(name, build_func=build_in, parent=parent, scope='eqzoo', locations=list(locations))
        self.rare = rare

    def names(self) -> list[str]:
        """Return the registered names, sorted."""
        self.import_from_location()
        return sorted(self.module_dict)

    def _register_module(
        self, module: type | Callable, module_name: str | list[str] | None = None, force: bool = False
    ) -> None:
        wanted = [module_name or module.__name__] if not isinstance(module_name, list) else module_name
        for kind in KINDS:
            for name in wanted if kind is not self else ():
                if name in kind.module_dict:
                    raise KeyError(
                        f'{name!r} is already a {kind.name} ({kind.module_dict[name].__module__}); '
                        f'names are unique over all kinds: choose another for this {self.name}.'
                    )
        super()._register_module(module, module_name, force)
        constructor = getattr(module, '__init__', None)
        if isinstance(module, type) and isinstance(constructor, FunctionType):
            module.__init__ = checks_arguments(constructor)


def _kind(name: str, parent: str | None = None, *locations: str, **options: Any) -> Kind:
    KINDS.append(Kind(name, getattr(root, parent) if parent else None, locations=locations, **options))
    return KINDS[-1]


# The names of bitsandbytes' optimizers; those that torch has too are called bnb_Adam, say.
OF_BITSANDBYTES = re.compile(r'bnb_\w+|(Paged)?\w+(8|32)bit|Paged\w+')

AUTOENCODERS = _kind('autoencoder', None, 'eqzoo.autoencoders')
QUANTIZERS = _kind('quantizer', None, 'eqzoo.autoencoders')
TRANSFORMS = _kind('transform', None, 'eqzoo.transforms')
REGULARIZERS = _kind('regulariser', None, 'eqzoo.regularizers')
LOSSES = _kind('loss', None, 'eqzoo.losses')
GENERATORS = _kind('generator', None, 'eqzoo.generators')
NETWORKS = _kind('network', None, 'eqzoo.generators')
PROCESSES = _kind('process', None, 'eqzoo.generators')
SAMPLERS = _kind('sampler', None, 'eqzoo.generators')
GUIDANCES = _kind('guidance', None, 'eqzoo.generators')
VISION = _kind('vision network', None, 'eqzoo.vision')
DATASETS = _kind('dataset', 'DATASETS', 'eqzoo.data', 'eqzoo.data.latents')
EVALUATORS = _kind('evaluator', 'METRICS', 'eqzoo.evaluators')
HOOKS = _kind('hook', 'HOOKS', 'eqzoo.engine')
MODELS = _kind('model', 'MODELS', 'eqzoo.engine')
LOOPS = _kind('loop', 'LOOPS', 'eqzoo.engine')
LOG_PROCESSORS = _kind('log processor', 'LOG_PROCESSORS', 'eqzoo.engine')
MODEL_WRAPPERS = _kind('model wrapper', 'MODEL_WRAPPERS', 'eqzoo.engine')
OPTIM_WRAPPERS = _kind('optimizer wrapper', 'OPTIM_WRAPPERS', 'eqzoo.engine')
OPTIMIZERS = _kind(
    'optimizer',
    'OPTIMIZERS',
    'eqzoo.engine.optimizers',
    rare=(
        re.compile(rf'{OF_BITSANDBYTES.pattern}|AdEMAMix|LAMB|LARS|Lion|Adafactor'),
        'eqzoo.engine.rare_optimizers',
    ),
)
PARAM_SCHEDULERS = _kind('parameter scheduler', 'PARAM_SCHEDULERS', 'eqzoo.engine.optimizers')
VISUALIZERS = _kind('visualizer', 'VISUALIZERS', 'mmengine.visualization')
VISUALIZER_BACKENDS = _kind('visualizer backend', 'VISBACKENDS', 'mmengine.visualization', 'eqzoo.engine')
OPTIM_WRAPPER_CONSTRUCTORS = _kind('optimizer constructor', 'OPTIM_WRAPPER_CONSTRUCTORS', 'eqzoo.engine')

# mmengine warns once for every root registry without a child in the default scope.
_ADOPTED = {id(kind.parent) for kind in KINDS}
for _registry in [value for value in vars(root).values() if isinstance(value, Registry)]:
    if id(_registry) not in _ADOPTED:
        Registry(_registry.name, parent=_registry, scope='eqzoo')
