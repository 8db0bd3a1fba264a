"""Plots of a study: its metrics, scores over training steps, and scores over predictors."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eqzoo.report.charts import MARKERS, SVG_STYLE, save_svg
from eqzoo.report.table import format_number
from eqzoo.studies.predictors import Prediction, arm_means
from eqzoo.studies.scores import Score, ScoreCurve, by_seed, score_curves, steps_of
from eqzoo.studies.study import Study
from eqzoo.studies.tables import heading

# As wide as the column of a page, where text then has its own size: no more than this side by side.
_WIDTH = 7.8  # inches
_MAX_PANELS = 3
_LABEL = 1.35  # times the largest value: where the mean is written
# Okabe and Ito's palette, which is safe for the colour-blind.
_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00', '#000000')
_STYLE = {
    **SVG_STYLE,
    'svg.fonttype': 'path',  # an image in a page cannot use the page's fonts
    'font.size': 10,
    'axes.titlesize': 10,
    'grid.alpha': 0.2,
    'figure.facecolor': 'white',
}


def plot_metrics(study: Study, scores: Sequence[Score], file: Path) -> bool:
    """Plot each metric that tables show: a line for each autoencoder, with a point for each seed, mean and spread.

    Panels stand in groups: reconstruction, equivariance errors, latents, generators. Axes begin at 0, so that lengths
    can be compared; the means are written beside the points.

    Returns whether anything was measured.
    """
    groups: dict[str, list[tuple[str, str, str | None, int | None]]] = {}
    for metric in study.columns['autoencoder']:
        if any(metric in each.metrics for each in scores if each.generator is None):
            groups.setdefault(_group(metric), []).append((metric, heading(metric), None, None))
    if study.score is not None:
        for name in study.generators:
            for step in steps_of(scores, name)[-1:]:
                title = f'{heading(study.score)} of {name}'
                groups.setdefault('Generators', []).append((study.score, title, name, step))
    if not groups:
        return False
    names = [name for name in study.autoencoders if any(each.autoencoder == name for each in scores)]
    rows = {title: -(-len(panels) // _MAX_PANELS) for title, panels in groups.items()}
    row = 0.75 + 0.24 * len(names)  # inches
    heights = [count * row + 0.35 for count in rows.values()]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, sum(heights)), layout='constrained')
        parts = figure.subfigures(len(groups), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, (title, panels) in zip(parts, groups.items(), strict=True):
            part.suptitle(title, x=0.01, ha='left', weight='bold', fontsize=12)
            axes = [*part.subplots(rows[title], _MAX_PANELS, sharey=True, squeeze=False).flat]
            for panel, (metric, its, generator, step) in zip(axes, panels, strict=False):
                _draw_arms(panel, [by_seed(scores, metric, name, generator, step) for name in names])
                panel.set_title(its)
                panel.set_yticks(range(len(names)), names)
            for panel in axes[len(panels) :]:
                panel.set_axis_off()
            axes[0].set_ylim(len(names) - 0.5, -0.5)  # the first on top
        save_svg(figure, file)
    return True


def _group(metric: str) -> str:
    if metric.startswith('eq_'):
        return 'Equivariance'
    near = ('psnr', 'ssim', 'lpips', 'fd', 'rfd', 'rfid')
    return 'Reconstruction' if metric.startswith(near) else 'Latents'


def plot_curves(study: Study, scores: Sequence[Score], file: Path) -> bool:
    """Plot the score over training steps, a panel for each generator; return whether any has several steps."""
    generators = [each for each in study.generators.values() if len(steps_of(scores, each.name)) > 1]
    if not generators or study.score is None:
        return False
    with matplotlib.rc_context(_STYLE):
        columns = min(len(generators), 2)
        rows = -(-len(generators) // columns)
        figure = Figure(figsize=(_WIDTH if columns > 1 else 0.6 * _WIDTH, 3 * rows), layout='constrained')
        panels = [*figure.subplots(rows, columns, squeeze=False).flat]
        for panel in panels[len(generators) :]:
            panel.set_axis_off()
        for panel, generator in zip(panels, generators, strict=False):
            arms = [each for each, its in study.pairs() if its.name == generator.name]
            for place, arm in enumerate(arms):
                if curves := score_curves(study, scores, arm.name, generator.name):
                    _draw_curve(panel, curves, arm.name, place)
            panel.set(title=generator.name, xlabel='training steps')
            panel.set_xticks([0, *steps_of(scores, generator.name)])
            panel.set_xlim(left=0)
            panel.set_ylabel(heading(study.score))
            panel.legend(frameon=False)
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
        label = dict(xycoords=('axes fraction', 'data'), ha='right', va='center', fontsize=9)
        panel.annotate(format_number(values.mean()), (0.99, place), **label)
    low, high = panel.dataLim.intervalx
    if np.isfinite([low, high]).all():
        panel.set_xlim(min(low, 0) * _LABEL, max(high * _LABEL, 0) or 1)
    panel.xaxis.set_major_locator(ticker.MaxNLocator(4))


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
        # axes begin where the points do: a scatter is read for its order, and from 0 it would be a spot
        figure = Figure(figsize=(_WIDTH, 2.5 * rows + 0.2 * len(names) / columns), layout='constrained')
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
