"""A study's pictures: D(τ∘E(x)) and the latents' principal components, of every autoencoder."""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from eqzoo import __version__
from eqzoo.autoencoders import Autoencoder
from eqzoo.config import load_config
from eqzoo.engine.picture_hooks import example_images
from eqzoo.laboratory import share_bases
from eqzoo.loading import load_autoencoder
from eqzoo.pictures import Row, default_cases, draw_grid
from eqzoo.registry import build
from eqzoo.studies.plan import Plan
from eqzoo.studies.plots import plot_curves, plot_metrics
from eqzoo.studies.scores import Score, collect
from eqzoo.studies.study import Study
from eqzoo.studies.tables import autoencoder_table, curve_table, difference_table, generator_table

_IMAGES = 8


@torch.no_grad()
def draw_gallery(plan: Plan, names: Sequence[str], seed: int) -> Image.Image:
    """Draw for each autoencoder D(E(x)) and D(τ∘E(x)) below x and τ∘x, and its latents' components.

    Colours are those of the laboratory: one basis where latents mean the same, else turned to agree.

    Args:
        plan: A study's stages, done.
        names: Which autoencoders.
        seed: Which of each.
    """
    (test,) = plan.measured[names[0], seed].commands
    config = load_config(test.words[0], test.overrides)
    images = example_images(build(config.test_dataloader.dataset), _IMAGES)
    weights = {name: plan.tuned[name, seed] for name in names}
    models = {name: load_autoencoder(file) for name, file in weights.items()}
    cases = default_cases(next(iter(models.values())).grid(*images.shape[-2:]))
    rows = [Row('x', images)]
    rows += [Row(f'τx  {label}', tau(images, params)) for label, (tau, params) in cases.items()]
    latents = {name: model.latents(images) for name, model in models.items()}
    bases = share_bases(latents)
    for name, model in models.items():
        rows.append(Row(f'{name}: D(E(x))', _decoded(model, latents[name])))
        for label, (tau, params) in cases.items():
            rows.append(Row(f'{name}: D(τE(x)) {label}', _decoded(model, tau(latents[name], params))))
        rows.append(Row(f'{name}: PCA of E(x)', bases[name].basis.colours(latents[name]), fills=True))
    return draw_grid(rows)


def _decoded(model: Autoencoder, latents: torch.Tensor) -> torch.Tensor:
    return model.decode(model.normalization.denormalize(latents))


PAGE = 'README.md'  # what GitHub shows of a folder


def report_study(study: Study, plan: Plan, seeds: Iterable[int], folder: Path, *, into: str | None = None) -> None:
    """Write README.md, results.csv, results.json, plots and pictures to `folder`.

    `pictures.png` is of all autoencoders, `before_and_after.png` of the first that has a control, and of that.

    Args:
        study: The grid.
        plan: Its stages, all of them done.
        seeds: Which were run.
        folder: Made if it is not there.
        into: A Markdown file to put the tables into as well; see `put_into`.

    Raises:
        ValueError: If results were not measured alike, or `into` has no place for the table.
    """
    seeds = list(seeds)
    scores = collect(study, plan, seeds)
    folder.mkdir(parents=True, exist_ok=True)
    made = _made(plan)
    tables = _tables(study, scores)
    plot_metrics(study, scores, folder / 'metrics.svg')
    has_curves = plot_curves(study, scores, folder / 'curves.svg')
    draw_gallery(plan, [*study.autoencoders], seeds[0]).save(folder / 'pictures.png')
    pair = next(((arm.against, name) for name, arm in study.autoencoders.items() if arm.against is not None), None)
    if pair is not None:
        draw_gallery(plan, pair, seeds[0]).save(folder / 'before_and_after.png')
    (folder / 'results.csv').write_text(_csv(scores))
    content = {'study': study.name, 'title': study.title, 'claim': study.claim, **made, **_with_protocols(scores)}
    (folder / 'results.json').write_text(json.dumps(content, indent=1, default=str) + '\n')
    (folder / PAGE).write_text('\n'.join(_page(study, tables, made, seeds, scores, has_curves)) + '\n')
    if into is not None:
        put_into(
            Path(into), study.name, [line for title, lines in tables[:2] for line in (f'{title}:', '', *lines, '')]
        )
    print('\n'.join(line for title, lines in tables for line in ('', title, '', *lines)))
    print(f'\nWritten: {folder / PAGE}, results.csv, results.json, plots and pictures')


def put_into(file: Path, name: str, lines: Sequence[str]) -> None:
    """Replace what is between a Markdown file's `<!-- study: NAME -->` and `<!-- end of study -->`.

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
    file.write_text(place.sub(lambda match: f'{match[1]}\n{body}\n\n{match[2]}', text))


def _tables(study: Study, scores: Sequence[Score]) -> list[tuple[str, list[str]]]:
    """Return titles and lines of those tables that there is something to show in."""
    tables = [('Autoencoders', autoencoder_table(study, scores))]
    if study.generators:
        tables.append(('Generators', generator_table(study, scores)))
    tables.append(('Differences', difference_table(study, scores)))
    tables.append(('Over training steps', curve_table(study, scores)))
    return [(title, lines) for title, lines in tables if lines]


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


def _page(
    study: Study,
    tables: Sequence[tuple[str, Sequence[str]]],
    made: Mapping[str, Any],
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
        *[f'- {name}: {value}' for name, value in _facts(made, scores)],
        '',
        _FILES,
    ]
    return page


def _title(study: Study) -> str:
    return f'{study.title}, on {study.data}' if study.data else study.title


def _facts(made: Mapping[str, Any], scores: Sequence[Score]) -> list[tuple[str, str]]:
    hardware = made['hardware'][0]
    versions = {
        name: hardware[name] for name in ('python', 'torch', 'diffusers', 'timm', 'mmengine-lite') if name in hardware
    }
    card = scores[0].card
    threads = f'{hardware["threads"]} thread{"" if hardware["threads"] == 1 else "s"} a stage'
    chip = hardware['gpu'] or hardware['processor']
    minutes = f'{made["seconds"] / 60:.0f} minutes one after the other'
    facts = [
        ('machine', f'{chip}, {hardware["cores"]} cores, {hardware["memory_gib"]} GiB; {threads}'),
        ('versions', ', '.join([f'eqzoo {__version__}', *(f'{name} {value}' for name, value in versions.items())])),
        ('stages', f'{made["num_stages"]}, {minutes}; those that other studies share are counted too'),
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


def _made(plan: Plan) -> dict[str, Any]:
    """Return on what, and in how many seconds, the stages were done."""
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
    """Return scores with their cards, of which each evaluator's is written once and numbered."""
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
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['autoencoder', 'generator', 'step', 'seed', *metrics])
    for each in scores:
        values = ['' if (value := each.metrics.get(name)) is None else repr(value) for name in metrics]
        writer.writerow([each.autoencoder, each.generator or '', each.step or '', each.seed, *values])
    return text.getvalue()
