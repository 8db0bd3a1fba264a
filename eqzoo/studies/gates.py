"""Gates of a study: whether an autoencoder is good enough to train generators on, seed by seed."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eqzoo.files import did_you_mean
from eqzoo.report.cards import differences
from eqzoo.report.results import Result, read_result
from eqzoo.report.table import format_number
from eqzoo.studies.plan import Gated, StudyPlan
from eqzoo.studies.stages import Stage
from eqzoo.studies.study import Gate, Study


class GateOutcome(NamedTuple):
    """A gate, and the value that it found in one seed.

    Args:
        gate: The gate.
        value: That has limits, see `Gate.compared`; None for a control, which is not compared with itself.
    """

    gate: Gate
    value: float | None

    @property
    def passed(self) -> bool:
        """Whether the value is within the limits; controls pass."""
        return self.value is None or self.gate.passes(self.value)

    def __str__(self) -> str:
        """Return the value and the verdict, as tables show them."""
        if self.value is None:
            return 'control'
        verdict = 'passed' if self.passed else 'failed'
        return f'{_signed(self.value) if self.gate.to_control == "difference" else format_number(self.value)} {verdict}'


class Gatekeeper:
    """Decides which stages of a plan may run, from the tests that the gates look at.

    It reads only tests that are done, so that a study stopped at any time and resumed comes to the same decisions.

    Args:
        study: The grid, with its gates.
        plan: Its stages.
        report: Called with a line about each autoencoder when its gates are decided.
    """

    def __init__(self, study: Study, plan: StudyPlan, report: Callable[[str], None] = lambda _: None) -> None:
        self._study, self._plan, self._report = study, plan, report
        self._found: dict[Gated, list[GateOutcome]] = {}

    def admits(self, stage: Stage) -> bool | None:
        """Return whether `stage` may run; None if a test that decides is not done yet."""
        verdicts = [self.is_open(each) for each in self._plan.gated.get(stage.folder, ())]
        if not verdicts or True in verdicts:
            return True
        return None if None in verdicts else False

    def is_open(self, gated: Gated) -> bool | None:
        """Return whether all gates that stop are passed; None if a test that decides is not done yet.

        Those of 'start' are of all starts of the seed; those of 'arm' are these and the autoencoder's own.
        """
        if gated.of == 'arm':
            starts = self.is_open(gated._replace(of='start'))
            return self._passed([gated]) if starts else starts
        return self._passed([each for each in self.starts() if each.seed == gated.seed])

    def outcomes(self, gated: Gated) -> list[GateOutcome] | None:
        """Return the outcomes of the gates of an autoencoder or of its start; None if a test is not done yet.

        Raises:
            ValueError: If a test lacks a gate's metric, or control and autoencoder were measured differently.
        """
        if gated not in self._found:
            found = self._measure(gated)
            if found is None:
                return None
            self._found[gated] = found
            if found:
                self._report(self._describe(gated, found))
        return self._found[gated]

    def starts(self) -> list[Gated]:
        """Return the starts that are tested, each once: by the first autoencoder that starts from it."""
        first: dict[tuple[Path, int], Gated] = {}
        for (name, seed), stage in self._plan.started.items():
            first.setdefault((stage.folder, seed), Gated('start', name, seed))
        return [*first.values()]

    def _passed(self, asked: Iterable[Gated]) -> bool | None:
        found = [self.outcomes(each) for each in asked]
        if None in found:
            return None
        return all(each.passed or not each.gate.stops for outcomes in found for each in outcomes)

    def _measure(self, gated: Gated) -> list[GateOutcome] | None:
        of, name, seed = gated
        gates = [gate for gate in self._study.gates.values() if gate.of == of]
        if not gates:
            return []
        control = self._study.autoencoders[name].against
        tests = [(self._plan.started if of == 'start' else self._plan.measured)[name, seed]]
        if control is not None and any(gate.to_control for gate in gates):
            tests.append(self._plan.measured[control, seed])
        if any(test.record() is None for test in tests):
            return None
        return [self._outcome(gate, tests, has_control=control is not None) for gate in gates]

    @staticmethod
    def _outcome(gate: Gate, tests: Sequence[Stage], *, has_control: bool) -> GateOutcome:
        if gate.to_control is not None and not has_control:
            return GateOutcome(gate, None)
        tests = tests if gate.to_control is not None else tests[:1]
        results = [read_result(test.folder) for test in tests]
        values = [_metric(gate, test, result) for test, result in zip(tests, results, strict=True)]
        if gate.to_control is not None:
            unlike = differences(gate.metric, *results)
            if unlike:
                raise ValueError(
                    f'study.gates[{gate.name!r}]: {gate.metric} was measured differently: {unlike[0].field} is '
                    f'{unlike[0].first} in {tests[0].name} and {unlike[0].second} in {tests[1].name}; change the '
                    'configs so that both are measured in one way.'
                )
        return GateOutcome(gate, gate.compared(values[0], values[-1]))

    def _describe(self, gated: Gated, outcomes: Sequence[GateOutcome]) -> str:
        """Return a line about the gates of an autoencoder, and what follows from them."""
        subject = f'{"start of " if gated.of == "start" else ""}{gated.autoencoder}, seed {gated.seed}'
        found = '; '.join(f'{each.gate.name} {each} ({condition(each.gate)})' for each in outcomes)
        if all(each.passed or not each.gate.stops for each in outcomes):
            return f'gates of {subject}: {found}'
        stopped = (
            f'nothing more of seed {gated.seed} is run' if gated.of == 'start' else 'no generator is trained on it'
        )
        return f'gates of {subject}: {found}; {stopped}'


def condition(gate: Gate) -> str:
    """Return the condition of a gate, as tables show it.

    Example:
        >>> condition(Gate('predictor', 'viv', at_most=0.9, to_control='ratio'))
        'viv / control ≤ 0.9'
        >>> condition(Gate('base', 'sec/0.25', at_least=0.4, of='start', stops=False))
        'sec/0.25 of the start ≥ 0.4, only reported'
    """
    subject = gate.metric + {None: '', 'difference': ' − control', 'ratio': ' / control'}[gate.to_control]
    subject += ' of the start' if gate.of == 'start' else ''
    limits = [(sign, limit) for sign, limit in (('≥', gate.at_least), ('≤', gate.at_most)) if limit is not None]
    stated = ' and '.join(f'{sign} {"−" if limit < 0 else ""}{abs(limit):g}' for sign, limit in limits)
    return f'{subject} {stated}{"" if gate.stops else ", only reported"}'


def gate_records(keeper: Gatekeeper, plan: StudyPlan) -> list[dict[str, Any]]:
    """Return all outcomes in JSON types; a value that is not a number is None, with `nan` true.

    As on the page, there is none of an autoencoder whose seed was stopped: its test is of an earlier run.
    """
    rows = []
    arms = [Gated('arm', *arm) for arm in plan.measured if keeper.is_open(Gated('start', *arm))]
    for gated in (*keeper.starts(), *arms):
        for outcome in keeper.outcomes(gated) or []:
            is_nan = outcome.value is not None and not math.isfinite(outcome.value)
            rows.append(
                {
                    **gated._asdict(),
                    'gate': outcome.gate.name,
                    'condition': condition(outcome.gate),
                    'value': None if is_nan else outcome.value,
                    'nan': is_nan,
                    'passed': outcome.passed,
                    'stops': outcome.gate.stops,
                }
            )
    return rows


def _metric(gate: Gate, test: Stage, result: Result) -> float:
    """Return the gate's metric in a test, NaN if it is not a number."""
    if gate.metric not in result.metrics:
        hint = did_you_mean(gate.metric, result.metrics)
        raise ValueError(
            f'study.gates[{gate.name!r}].metric: {test.name} has no {gate.metric!r}.{hint} It has: '
            f'{", ".join(result.metrics)}. Add the evaluator of {gate.metric!r} to test_evaluators of the config.'
        )
    value = result.metrics[gate.metric]
    return math.nan if value is None else value


def _signed(value: float) -> str:
    if not math.isfinite(value):
        return 'nan'
    return f'{"−" if value < 0 else "+"}{format_number(abs(value))}'
