"""A study's plots, as SVG: every seed's point, their means and spread."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eqzoo.report.charts import MARKERS
from eqzoo.studies.scores import Score, steps_of
from eqzoo.studies.study import Study
from eqzoo.studies.tables import by_seed, curves_of, heading

# Okabe and Ito's, which the colour-blind tell apart.
_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00', '#000000')
_STYLE = {
    'svg.fonttype': 'path',  # a picture in a page has not the page's fonts
    'svg.hashsalt': 'eqzoo',  # the same numbers give the same bytes
    'font.size': 9,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'grid.alpha': 0.2,
    'figure.facecolor': 'white',
}
_COLUMNS = 4


def plot_metrics(study: Study, scores: Sequence[Score], file: Path) -> None:
    """Draw each metric that tables show: an autoencoder a line, a point each seed, mean and standard deviation."""
    panels = [
        (metric, heading(metric), None, None)
        for metric in study.columns['autoencoder']
        if any(metric in each.metrics for each in scores if each.generator is None)
    ]
    if study.score is not None:
        panels += [
            (study.score, f'{heading(study.score)} of {each.name}', each.name, steps_of(scores, each.name)[-1])
            for each in study.generators.values()
        ]
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    names = list(study.autoencoders)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(2.6 * columns + 1, rows * (0.9 + 0.26 * len(names))), layout='constrained')
        axes = [*figure.subplots(rows, columns, sharey=True, squeeze=False).flat]
        for panel, (metric, title, generator, step) in zip(axes, panels, strict=False):
            _draw_arms(panel, [by_seed(scores, metric, name, generator, step) for name in names])
            panel.set_title(title, fontsize=9)
            panel.set_yticks(range(len(names)), names)
        for panel in axes[len(panels) :]:
            panel.set_axis_off()
        axes[0].set_ylim(len(names) - 0.5, -0.5)  # the first on top
        _save(figure, file)


def plot_curves(study: Study, scores: Sequence[Score], file: Path) -> bool:
    """Draw the generators' score over training steps, a panel each; return whether there was any to draw."""
    generators = [each for each in study.generators.values() if len(each.scores) > 1]
    if not generators or study.score is None:
        return False
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.6 * len(generators), 3), layout='constrained')
        panels = figure.subplots(1, len(generators), squeeze=False)[0]
        for panel, generator in zip(panels, generators, strict=True):
            arms = [each for each, its in study.pairs() if its.name == generator.name]
            for place, arm in enumerate(arms):
                _draw_curve(panel, curves_of(study, scores, arm.name, generator.name), arm.name, place)
            panel.set(title=generator.name, xlabel='training steps')
            panel.set_xticks(steps_of(scores, generator.name))
            panel.legend(frameon=False)
        panels[0].set_ylabel(heading(study.score))
        _save(figure, file)
    return True


def _draw_arms(panel: Axes, arms: Sequence[Mapping[int, float]]) -> None:
    for place, arm in enumerate(arms):
        values = np.array([*arm.values()])
        if not len(values) or not np.isfinite(values).all():
            continue
        colour = _COLOURS[place % len(_COLOURS)]
        panel.plot(values, np.full(len(values), place), 'o', color=colour, alpha=0.35, markersize=4)
        std = values.std(ddof=1) if len(values) > 1 else 0
        panel.errorbar(values.mean(), place, xerr=std, fmt='|', color=colour, markersize=12, linewidth=1.5)


def _draw_curve(panel: Axes, curves: Mapping[int, Sequence[tuple[int, float]]], label: str, place: int) -> None:
    colour, marker = _COLOURS[place % len(_COLOURS)], MARKERS[place % len(MARKERS)][0]
    steps = [step for step, _ in next(iter(curves.values()))]
    values = np.array([[value for _, value in curve] for curve in curves.values()])
    panel.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
    panel.plot(steps, values.mean(0), color=colour, marker=marker, markersize=4, label=label)


def _save(figure: Figure, file: Path) -> None:
    figure.savefig(file, format='svg', metadata=dict.fromkeys(('Date', 'Creator', 'Format', 'Type')))
