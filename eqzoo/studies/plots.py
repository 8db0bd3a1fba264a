"""Plots of a study: its metrics, scores over training steps, and scores over predictors."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eqzoo.report.charts import MARKERS, SVG_STYLE, save_svg
from eqzoo.studies.predictors import Prediction, arm_means
from eqzoo.studies.scores import Score, ScoreCurve, by_seed, score_curves, steps_of
from eqzoo.studies.study import Study
from eqzoo.studies.tables import heading

_MAX_PANELS = 4  # side by side
# Okabe and Ito's palette, which is safe for the colour-blind.
_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00', '#000000')
_STYLE = {
    **SVG_STYLE,
    'svg.fonttype': 'path',  # an image in a page cannot use the page's fonts
    'font.size': 9,
    'grid.alpha': 0.2,
    'figure.facecolor': 'white',
}


def plot_metrics(study: Study, scores: Sequence[Score], file: Path) -> bool:
    """Plot each metric that tables show: a line for each autoencoder, with a point for each seed, mean and spread.

    Returns whether anything was measured.
    """
    panels = [
        (metric, heading(metric), None, None)
        for metric in study.columns['autoencoder']
        if any(metric in each.metrics for each in scores if each.generator is None)
    ]
    if study.score is not None:
        panels += [
            (study.score, f'{heading(study.score)} of {name}', name, step)
            for name in study.generators
            for step in steps_of(scores, name)[-1:]
        ]
    if not panels:
        return False
    columns = min(_MAX_PANELS, len(panels))
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
        save_svg(figure, file)
    return True


def plot_curves(study: Study, scores: Sequence[Score], file: Path) -> bool:
    """Plot the score over training steps, a panel for each generator; return whether any has several steps."""
    generators = [each for each in study.generators.values() if len(steps_of(scores, each.name)) > 1]
    if not generators or study.score is None:
        return False
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.6 * len(generators), 3), layout='constrained')
        panels = figure.subplots(1, len(generators), squeeze=False)[0]
        for panel, generator in zip(panels, generators, strict=True):
            arms = [each for each, its in study.pairs() if its.name == generator.name]
            for place, arm in enumerate(arms):
                if curves := score_curves(study, scores, arm.name, generator.name):
                    _draw_curve(panel, curves, arm.name, place)
            panel.set(title=generator.name, xlabel='training steps')
            panel.set_xticks(steps_of(scores, generator.name))
            panel.legend(frameon=False)
        panels[0].set_ylabel(heading(study.score))
        save_svg(figure, file)
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


def _draw_curve(panel: Axes, curves: Mapping[int, ScoreCurve], label: str, place: int) -> None:
    colour, marker = _COLOURS[place % len(_COLOURS)], MARKERS[place % len(MARKERS)][0]
    steps = [step for step, _ in next(iter(curves.values()))]
    values = np.array([[value for _, value in curve] for curve in curves.values()])
    panel.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
    panel.plot(steps, values.mean(0), color=colour, marker=marker, markersize=4, label=label)


def plot_predictions(found: Sequence[Prediction], names: Sequence[str], file: Path) -> bool:
    """Plot the score over each predictor: a small point for each seed, a large one for an autoencoder's mean.

    Returns whether anything was measured.
    """
    found = [each for each in found if any(each.points.values())]
    if not found:
        return False
    columns = min(_MAX_PANELS, len(found))
    rows = -(-len(found) // columns)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(2.8 * columns, 2.5 * rows + 0.2 * len(names) / columns), layout='constrained')
        axes = [*figure.subplots(rows, columns, squeeze=False).flat]
        for panel, each in zip(axes, found, strict=False):
            _draw_prediction(panel, each, names)
        for panel in axes[len(found) :]:
            panel.set_axis_off()
        figure.legend(*axes[0].get_legend_handles_labels(), loc='outside lower center', ncols=columns, frameon=False)
        save_svg(figure, file)
    return True


def _draw_prediction(panel: Axes, prediction: Prediction, names: Sequence[str]) -> None:
    means = arm_means(prediction.points)
    for place, name in enumerate(names):
        look = dict(color=_COLOURS[place % len(_COLOURS)], marker=MARKERS[place % len(MARKERS)][0], linestyle='none')
        points = prediction.points.get(name, {}).values()
        panel.plot(*(zip(*points, strict=True) if points else ([], [])), **look, alpha=0.35, markersize=3)
        # an empty line too, so that the legend of the first panel has every autoencoder
        panel.plot(*([side] for side in means[name]) if name in means else ([], []), **look, markersize=6, label=name)
    score = heading(prediction.score, arrow=False)
    panel.set(xlabel=heading(prediction.predictor, arrow=False), ylabel=f'{score} of {prediction.generator}')
