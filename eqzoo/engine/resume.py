"""Resuming with a changed config: find all changes, and apply or refuse each.

A checkpoint contains the config of its run as text. This module finds every difference from the new config. `RULES` has
the policy for each: the new value is applied, the value of the checkpoint is kept, or the resume is refused. One
message lists all of them; an unchanged config has no message.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mmengine.config import Config
from mmengine.runner import Runner

from eqzoo.config import set_key, trains_autoencoder
from eqzoo.registry import argument_defaults
from eqzoo.zoo import without_passwords

Policy = Literal['applied', 'kept', 'refused', 'not compared']


class _Absent:
    """The value of a key that a config does not have."""

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return 'nothing'


_ABSENT = _Absent()


class Rule(NamedTuple):
    """A policy for keys of a config.

    Args:
        keys: A regular expression for the whole key, such as 'seed'.
        policy: 'applied': the new value counts from the next step on. 'kept': the checkpoint's value counts.
            'refused': the run does not start. 'not compared': the key does not belong to the training.
        reason: Why, for the message.
        kind: 'autoencoder' or 'generator' for a rule about the training of one of them.
        is_dropped: Whether the rule is only about values that are no longer there.
    """

    keys: str
    policy: Policy
    reason: str = ''
    kind: str = ''
    is_dropped: bool = False


# The first rule that matches counts.
RULES = (
    Rule(r'work_dir|resume|device|(test|cache)_\w+.*|sampling.*|\w+\.num_workers', 'not compared'),
    Rule(r'seed', 'kept', 'data and random numbers continue in their order'),
    Rule(
        r'model\.autoencoder\.weights', 'kept', 'training continues with the weights of the checkpoint', 'autoencoder'
    ),
    Rule(r'model\.autoencoder\.weights', 'applied', 'the latents must come from this autoencoder', 'generator'),
    Rule(
        r'model\.autoencoder\.(scale|shift|mean|std)', 'kept', 'the normalisation is in the checkpoint', 'autoencoder'
    ),
    Rule(
        r'model\.(generator\.network|adversarial_loss\.discriminator)\.weights',
        'kept',
        'the weights of the checkpoint are used',
    ),
    Rule(r'model\.generator\.network\.(checkpointing|\w*dropout\w*)', 'applied'),
    Rule(r'model\.autoencoder(\..*)?', 'refused', 'another autoencoder'),
    Rule(r'model\.generator(\..*)?', 'refused', 'another generator'),
    Rule(r'model\.adversarial_loss(\.discriminator.*)?', 'refused', 'another discriminator'),
    Rule(r'model\.adversarial_loss\.penalties(\.\d+\.type)?', 'refused', 'they may have averages of logits'),
    Rule(r'model\.encoder_rate', 'refused', 'other groups of parameters; `phases` change it'),
    Rule(r'model\.type', 'refused', 'another kind of training'),
    Rule(r'optim_wrapper\.\w+(\.optimizer(\.type)?)?', 'refused', 'the checkpoint has the state of another optimizer'),
    Rule(
        r'optim_wrapper\.\w+\.optimizer\.(amsgrad|fused|capturable)',
        'refused',
        "it changes the contents of the optimizer's state",
    ),
    Rule(r'optim_wrapper\..*', 'applied', 'schedules start from the new values'),
    Rule(r'param_scheduler.*', 'applied', 'the schedule continues as if it had been set from the start'),
    Rule(r'train_cfg\.max_iters', 'applied', 'schedules without an end of their own end with the run'),
    Rule(r'custom_hooks\.EMAHook', 'refused', 'the average would be lost', is_dropped=True),
    Rule(r'custom_hooks\.EMAHook', 'applied', 'the average starts from the weights'),
    Rule(
        r'train_dataloader\.(batch_size|dataset.*)',
        'applied',
        'images come in the order as if it had been set from the start',
    ),
    Rule(
        r'evaluators.*|val_.*|default_hooks\.checkpoint\.(save_best|rule)',
        'applied',
        'the best checkpoint is chosen again',
    ),
    Rule(r'.*', 'applied'),
)

_OF_OPTIMIZERS = ('optim_wrapper', 'param_scheduler', 'train_cfg.max_iters')
_OF_THE_BEST = ('evaluators', 'val_', 'default_hooks.checkpoint.save_best', 'default_hooks.checkpoint.rule')
_MAX_LENGTH = 80  # characters of a value in a message


class Change(NamedTuple):
    """A key whose value differs, with its value in the checkpoint and now, and the rule for it."""

    key: str
    old: Any
    new: Any
    rule: Rule

    def __str__(self) -> str:
        reason = f' ({self.rule.reason})' if self.rule.reason else ''
        return f'{self.rule.policy:<7}  {self.key}: {_short(self.old)}, now {_short(self.new)}{reason}'


def config_changes(old: str, new: str) -> list[Change]:
    """Return what differs between two configs, given as text that mmengine has formatted.

    An argument that one of them leaves out has its default. Paths below the work directory count from there.

    Raises:
        ValueError: If a text is no config of plain values; no code in it is run.
    """
    if old == new:
        return []
    before, now = (_below_work_dir(read_config_text(text)) for text in (old, new))
    kind = 'autoencoder' if trains_autoencoder(now.get('model') or {}) else 'generator'
    for each in (before, now):  # by type: the name of a hook changes nothing
        each['custom_hooks'] = _by_type(each.get('custom_hooks') or {})
    found = []
    for key, was, value in _differences(before, now, ''):
        rule = next(
            rule
            for rule in RULES
            if re.fullmatch(rule.keys, key)
            and rule.kind in ('', kind)
            and (not rule.is_dropped or value is _ABSENT or value is None)
        )
        if rule.policy != 'not compared':
            found.append(Change(key, was, value, rule))
    return found


def describe_changes(changes: Sequence[Change], checkpoint: str) -> str:
    """Return the message about changes since a checkpoint, by its name."""
    return '\n'.join(
        [f'The config has changed since {checkpoint}:', *(f'  {each}' for each in _sorted_by_policy(changes))]
    )


def check_changes(changes: Sequence[Change], checkpoint: Path) -> None:
    """Refuse changes that a resume cannot make.

    Raises:
        ValueError: Listing all changes.
    """
    refused = [each.key for each in changes if each.rule.policy == 'refused']
    if refused:
        raise ValueError(
            f'--resume: {describe_changes(changes, checkpoint.name)}\n'
            f'Set {", ".join(refused)} back to resume, or start another run with work_dir=PATH (an autoencoder from '
            f'these weights with model.autoencoder.weights={checkpoint}).'
        )


def keep_old_values(config: Config, changes: Sequence[Change]) -> None:
    """Set the kept keys of `config` to the checkpoint's values, so that the run and its next checkpoints have them.

    A file of weights stays the new one: it is loaded, and the checkpoint after it.
    """
    for each in changes:
        if each.rule.policy == 'kept' and not each.key.endswith('.weights'):
            set_key(config, each.key, None if each.old is _ABSENT else each.old)


class Settings:
    """The hyper-parameters of a runner's optimizers, and its schedules, as a config has them.

    A checkpoint brings its own. `restore` puts these back, with the schedules at the checkpoint's step.

    Args:
        runner: With optimizers and schedules, before it loads a checkpoint.
    """

    def __init__(self, runner: Runner) -> None:
        self._groups = [{key: item for key, item in group.items() if key != 'params'} for group in _groups(runner)]
        self._schedules = [dict(vars(each)) for each in _schedules(runner)]

    def restore(self, runner: Runner, step: int) -> None:
        """Put them back, and take the schedules through `step` steps as training does, which only adds numbers."""
        for group, settings in zip(_groups(runner), self._groups, strict=True):
            group.update(settings)
        schedules = _schedules(runner)
        for schedule, settings in zip(schedules, self._schedules, strict=True):
            vars(schedule).clear()
            vars(schedule).update(settings)
            schedule.optimizer._global_step = step  # otherwise mmengine warns that nothing has been trained
        for _ in range(step):
            for schedule in schedules:
                if not schedule.by_epoch:
                    schedule.step()


def concerns_optimizers(changes: Sequence[Change]) -> bool:
    """Return whether hyper-parameters or schedules have changed."""
    return any(each.key.startswith(_OF_OPTIMIZERS) for each in changes)


def concerns_best(changes: Sequence[Change]) -> bool:
    """Return whether the best value so far was measured in another way."""
    return any(each.key.startswith(_OF_THE_BEST) for each in changes)


def _groups(runner: Runner) -> list[dict[str, Any]]:
    return [group for wrapper in runner.optim_wrapper.values() for group in wrapper.optimizer.param_groups]


def _schedules(runner: Runner) -> list[Any]:
    """Return the schedules of all optimizers; mmengine has a list, or one by the name of each optimizer."""
    schedules = runner.param_schedulers or []
    return [each for own in schedules.values() for each in own] if isinstance(schedules, Mapping) else list(schedules)


def read_config_text(text: str) -> dict[str, Any]:
    """Return the config that a checkpoint has as text, which has values and `dict(key=value)` only.

    Checkpoints of earlier versions have the passwords of URLs in it: they are left out.

    Raises:
        ValueError: If it has anything else; no code in it is run.
    """
    try:
        lines = ast.parse(text).body
        return without_passwords({line.targets[0].id: _value(line.value) for line in lines})
    except (SyntaxError, ValueError, AttributeError, RecursionError, MemoryError) as error:
        raise ValueError(f'it cannot be read ({type(error).__name__}: {error})') from None


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict' and not node.args:
        return {each.arg: _value(each.value) for each in node.keywords}
    if isinstance(node, ast.Dict):
        return {ast.literal_eval(key): _value(item) for key, item in zip(node.keys, node.values, strict=True)}
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(each) for each in node.elts]
    try:
        return ast.literal_eval(node)
    except ValueError:  # inf and nan have no other form
        return ast.unparse(node)


def _below_work_dir(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config in which paths below its work directory begin there: the folder may have been moved."""
    folder = config.get('work_dir')

    def move(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: move(item) for key, item in value.items()}
        if isinstance(value, list):
            return [move(item) for item in value]
        is_below = isinstance(value, str) and isinstance(folder, str) and value.startswith(f'{folder}/')
        return f'work_dir{value[len(folder) :]}' if is_below else value

    return move(config)


def _by_type(hooks: Mapping[str, Any]) -> dict[str, Any]:
    """Return hooks by their type, since their names have no meaning."""
    return {f'{_type_of(hook)}': hook for hook in hooks.values()}


def _differences(old: Any, new: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield the place of each difference, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        if _type_of(old) != _type_of(new):
            yield f'{where}.type', old.get('type'), new.get('type')
            return
        for key in {**old, **new}:
            if key == 'type':
                continue
            values = [each[key] if key in each else _default(new, key) for each in (old, new)]
            yield from _differences(*values, f'{where}.{key}'.lstrip('.'))
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        for number, values in enumerate(zip(old, new, strict=True)):
            yield from _differences(*values, f'{where}.{number}')
    elif old != new and not (_ABSENT in (old, new) and not (old or new)):
        yield where, old, new


def _default(component: Mapping[str, Any], key: str) -> Any:
    # asked only for keys that one of the two lacks: the signature of a component costs the import of its module
    return argument_defaults(component['type']).get(key, _ABSENT) if 'type' in component else _ABSENT


def _type_of(component: Any) -> str | None:
    """Return the name of a component's type, without the module that it may be given with."""
    name = component.get('type') if isinstance(component, Mapping) else None
    return name.rpartition('.')[2] if isinstance(name, str) else name


def _sorted_by_policy(changes: Sequence[Change]) -> list[Change]:
    order = ('refused', 'kept', 'applied')
    return sorted(changes, key=lambda each: order.index(each.rule.policy))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_LENGTH else f'{text[: _MAX_LENGTH - 1]}…'
