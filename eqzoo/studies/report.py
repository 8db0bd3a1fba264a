"""Report of a study: a page with its tables, plots and pictures, and all numbers as CSV and JSON."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from eqzoo import __version__
from eqzoo.autoencoders import Autoencoder
from eqzoo.config import load_config
from eqzoo.engine.picture_hooks import example_images
from eqzoo.files import replacing
from eqzoo.laboratory import share_bases
from eqzoo.loading import load_autoencoder
from eqzoo.pictures import PictureRow, default_cases, draw_grid
from eqzoo.registry import build
from eqzoo.report.charts import MARKERS, SVG_STYLE, save_svg
from eqzoo.report.table import csv_text
from eqzoo.studies.plan import StudyPlan
from eqzoo.studies.scores import Score, ScoreCurve, by_seed, collect_scores, score_curves, steps_of
from eqzoo.studies.study import Study
from eqzoo.studies.tables import autoencoder_table, curve_table, difference_table, generator_table, heading

_PAGE = 'README.md'  # GitHub shows it below a folder
_NUM_IMAGES = 8  # in pictures
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
_GALLERY = (
    'Images, turned and halved images, and for each autoencoder the decoded turned and halved latents, and the '
    'principal components of its latents as colours, in one basis where latents mean the same.'
)
_FILES = (
    'All numbers, of each seed, are in [results.csv](results.csv); with the cards that say how they were measured in '
    '[results.json](results.json).'
)
_NOTES = {
    'Differences': 'Seed by seed: mean ± standard deviation, and in how many seeds the sign is that of the mean.',
    'Over training steps': "The speed-up is the control's last step over the step at which its last score is reached.",
}


def report_study(study: Study, plan: StudyPlan, seeds: Iterable[int], folder: Path, *, into: str | None = None) -> None:
    """Write README.md, results.csv, results.json, plots and pictures to `folder`.

    `pictures.png` shows all autoencoders, `before_and_after.png` the first one with a control, and its control.

    Args:
        study: The grid.
        plan: Its stages, all of them done.
        seeds: The seeds of the plan.
        folder: Created if it does not exist.
        into: A Markdown file to put the tables into as well; see `put_into`.

    Raises:
        ValueError: If results were measured differently, or `into` has no place for the tables.
    """
    seeds = list(seeds)
    scores = collect_scores(study, plan, seeds)
    folder.mkdir(parents=True, exist_ok=True)
    origin = _origin(plan)
    tables = _tables(study, scores)
    plot_metrics(study, scores, folder / 'metrics.svg')
    has_curves = plot_curves(study, scores, folder / 'curves.svg')
    draw_gallery(plan, [*study.autoencoders], seeds[0]).save(folder / 'pictures.png')
    pair = next(((arm.against, name) for name, arm in study.autoencoders.items() if arm.against is not None), None)
    if pair is not None:
        draw_gallery(plan, pair, seeds[0]).save(folder / 'before_and_after.png')
    content = {'study': study.name, 'title': study.title, 'claim': study.claim, **origin, **_with_protocols(scores)}
    for name, text in (
        ('results.csv', _csv(scores)),
        ('results.json', json.dumps(content, indent=1, default=str) + '\n'),
        (_PAGE, '\n'.join(_page(study, tables, origin, seeds, scores, has_curves)) + '\n'),
    ):
        with replacing(folder / name) as temporary:
            temporary.write_text(text)
    if into is not None:
        lines = [line for title, table in tables[:2] for line in (f'{title}:', '', *table, '')]
        put_into(Path(into), study.name, lines)
    print('\n'.join(line for title, lines in tables for line in ('', title, '', *lines)))
    print(f'\nWritten: {folder / _PAGE}, results.csv, results.json, plots and pictures')


def put_into(file: Path, name: str, lines: Sequence[str]) -> None:
    """Replace the part between `<!-- study: NAME -->` and `<!-- end of study -->` of a Markdown file.

    Raises:
        ValueError: If the file has no such place.
    """
    text = file.read_text()
    place = re.compile(rf'(<!-- study: {re.escape(name)} -->\n).*?(<!-- end of study -->)', re.DOTALL)
    if not place.search(text):
        raise ValueError(
            f'--into: {file} has no place for this study; write these two lines where the table should be:\n'
            f'<!-- study: {name} -->\n<!-- end of study -->'
        )
    body = '\n'.join(lines).strip()
    with replacing(file) as temporary:
        temporary.write_text(place.sub(lambda match: f'{match[1]}\n{body}\n\n{match[2]}', text))


def _tables(study: Study, scores: Sequence[Score]) -> list[tuple[str, list[str]]]:
    """Return the titles and lines of all tables that are not empty."""
    tables = [('Autoencoders', autoencoder_table(study, scores))]
    if study.generators:
        tables.append(('Generators', generator_table(study, scores)))
    tables.append(('Differences', difference_table(study, scores)))
    tables.append(('Over training steps', curve_table(study, scores)))
    return [(title, lines) for title, lines in tables if lines]


def _page(
    study: Study,
    tables: Sequence[tuple[str, Sequence[str]]],
    origin: Mapping[str, Any],
    seeds: Sequence[int],
    scores: Sequence[Score],
    has_curves: bool,
) -> list[str]:
    page = [f'# {_title(study)}', '']
    page += [f'The paper: {study.claim}', ''] if study.claim else []
    seeded = [*(['start'] if any(arm.start for arm in study.autoencoders.values()) else []), 'fine-tuning']
    seeded += ['generator', 'samples'] if study.generators else []
    count = f'{len(seeds)} seed{"" if len(seeds) == 1 else "s"}'
    page += [f'Mean ± standard deviation over {count} of {", ".join(seeded)}.', '']
    for title, lines in tables:
        page += [f'## {title}', '', *([_NOTES[title], ''] if title in _NOTES else []), *lines, '']
    page += ['## Plots', '']
    page += ['![The score over training steps](curves.svg)', ''] if has_curves else []
    page += ['![Every metric of every arm, a point each seed](metrics.svg)', '']
    page += [
        '## Pictures',
        '',
        f'{_GALLERY} Seed {seeds[0]}.',
        '',
        '![D(τE(x)) and latent components](pictures.png)',
        '',
        '## How it was made',
        '',
        '```console',
        f'$ python tools/study.py configs/studies/{study.name}.py --seeds {len(seeds)}',
        '```',
        '',
        *[f'- {name}: {value}' for name, value in _facts(origin, scores)],
        '',
        _FILES,
    ]
    return page


def _title(study: Study) -> str:
    return f'{study.title}, on {study.data}' if study.data else study.title


def _facts(origin: Mapping[str, Any], scores: Sequence[Score]) -> list[tuple[str, str]]:
    hardware = origin['hardware'][0]
    versions = {
        name: hardware[name] for name in ('python', 'torch', 'diffusers', 'timm', 'mmengine-lite') if name in hardware
    }
    card = scores[0].card
    threads = f'{hardware["threads"]} thread{"" if hardware["threads"] == 1 else "s"} a stage'
    chip = hardware['gpu'] or hardware['processor']
    minutes = f'{origin["seconds"] / 60:.0f} minutes one after the other'
    facts = [
        ('machine', f'{chip}, {hardware["cores"]} cores, {hardware["memory_gib"]} GiB; {threads}'),
        ('versions', ', '.join([f'eqzoo {__version__}', *(f'{name} {value}' for name, value in versions.items())])),
        ('stages', f'{origin["num_stages"]}, {minutes}; those that other studies share are counted too'),
        ('autoencoders tested on', f'{card["num_images"]} images, {_data(card["data"])}'),
    ]
    sampled = next((each.card for each in scores if each.generator), None)
    if sampled:
        features = [_extractor(its['extractor']) for its in sampled['evaluators'].values() if 'extractor' in its]
        facts.append(('generators tested by', '; features: '.join([f'{sampled["num_images"]} samples', *features[:1]])))
    return facts


def _data(data: Mapping[str, Any]) -> str:
    return ', '.join(f'{name} {value}' for name, value in data.items() if name != 'sha256' and value not in (None, ''))


def _extractor(card: Mapping[str, Any]) -> str:
    return f'{card["network"]}, images resized to {card["resize"]}' if 'resize' in card else card['network']


def _origin(plan: StudyPlan) -> dict[str, Any]:
    """Return the machines that ran the stages, and their total time in seconds."""
    records = [record for stage in plan.stages.values() if (record := stage.record())]
    machines: list[dict[str, Any]] = []
    for record in records:
        if record['hardware'] not in machines:
            machines.append(record['hardware'])
    return {
        'eqzoo': __version__,
        'hardware': machines,
        'num_stages': len(records),
        'seconds': round(sum(record['seconds'] for record in records)),
    }


def _with_protocols(scores: Sequence[Score]) -> dict[str, Any]:
    """Return the scores with their cards, in which numbers refer to a list of the evaluators' protocols."""
    protocols: list[Any] = []
    rows = []
    for score in scores:
        numbers = {}
        for name, its in score.card['evaluators'].items():
            if its not in protocols:
                protocols.append(its)
            numbers[name] = protocols.index(its)
        rows.append({**vars(score), 'card': {**score.card, 'evaluators': numbers}})
    return {'protocols': protocols, 'scores': rows}


def _csv(scores: Sequence[Score]) -> str:
    metrics = list(dict.fromkeys(name for each in scores for name in each.metrics))
    rows = [['autoencoder', 'generator', 'step', 'seed', *metrics]]
    for each in scores:
        values = ['' if (value := each.metrics.get(name)) is None else repr(value) for name in metrics]
        rows.append([each.autoencoder, each.generator or '', each.step or '', each.seed, *values])
    return csv_text(rows)


def plot_metrics(study: Study, scores: Sequence[Score], file: Path) -> None:
    """Plot each metric that tables show: a line for each autoencoder, with a point for each seed, mean and spread."""
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


def plot_curves(study: Study, scores: Sequence[Score], file: Path) -> bool:
    """Plot the score over training steps, a panel for each generator; return whether any has several steps."""
    generators = [each for each in study.generators.values() if len(each.scores) > 1]
    if not generators or study.score is None:
        return False
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.6 * len(generators), 3), layout='constrained')
        panels = figure.subplots(1, len(generators), squeeze=False)[0]
        for panel, generator in zip(panels, generators, strict=True):
            arms = [each for each, its in study.pairs() if its.name == generator.name]
            for place, arm in enumerate(arms):
                _draw_curve(panel, score_curves(study, scores, arm.name, generator.name), arm.name, place)
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


@torch.no_grad()
def draw_gallery(plan: StudyPlan, names: Sequence[str], seed: int) -> Image.Image:
    """Draw x and τ∘x, then for each autoencoder D(E(x)), D(τ∘E(x)) and its latents' components.

    Colours are those of the laboratory: one basis in one latent space, otherwise rotated to agree.

    Args:
        plan: A study's stages, done.
        names: The autoencoders.
        seed: The seed of all of them.
    """
    (test,) = plan.measured[names[0], seed].commands
    config = load_config(test.words[0], test.overrides)
    images = example_images(build(config.test_dataloader.dataset), _NUM_IMAGES)
    weights = {name: plan.tuned[name, seed] for name in names}
    models = {name: load_autoencoder(file) for name, file in weights.items()}
    cases = default_cases(next(iter(models.values())).grid(*images.shape[-2:]))
    rows = [PictureRow('x', images)]
    rows += [PictureRow(f'τx  {label}', tau(images, params)) for label, (tau, params) in cases.items()]
    latents = {name: model.latents(images) for name, model in models.items()}
    bases = share_bases(latents)
    for name, model in models.items():
        rows.append(PictureRow(f'{name}: D(E(x))', _decoded(model, latents[name])))
        for label, (tau, params) in cases.items():
            rows.append(PictureRow(f'{name}: D(τE(x)) {label}', _decoded(model, tau(latents[name], params))))
        rows.append(PictureRow(f'{name}: PCA of E(x)', bases[name].basis.colours(latents[name]), fills=True))
    return draw_grid(rows)


def _decoded(model: Autoencoder, latents: torch.Tensor) -> torch.Tensor:
    return model.decode(model.normalization.denormalize(latents))
