"""Report of a study: a page with its tables, plots and pictures, and all numbers as CSV and JSON."""

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from eqzoo import __version__
from eqzoo.autoencoders import Autoencoder
from eqzoo.config import load_config
from eqzoo.engine.picture_hooks import example_images
from eqzoo.files import replacing, save_picture
from eqzoo.laboratory import share_bases
from eqzoo.loading import load_autoencoder
from eqzoo.pictures import PictureRow, default_cases, draw_grid
from eqzoo.registry import build
from eqzoo.report.meanings import SYMBOLS, arm_meanings, meaning
from eqzoo.report.table import csv_text, escape_markdown
from eqzoo.studies.criterion import changes_since, criterion_lines, date_of_criterion, judge
from eqzoo.studies.gates import Gatekeeper, gate_records
from eqzoo.studies.plan import StudyPlan
from eqzoo.studies.plots import plot_curves, plot_metrics, plot_predictions
from eqzoo.studies.predictors import MIN_POINTS, predictions
from eqzoo.studies.scores import Score, collect_scores
from eqzoo.studies.study import Study
from eqzoo.studies.tables import (
    autoencoder_table,
    criterion_table,
    curve_table,
    difference_table,
    gate_table,
    generator_table,
    heading,
    predictor_table,
)
from eqzoo.text import counted

_PAGE = 'README.md'  # GitHub shows it below a folder
_NUM_IMAGES = 8  # in pictures
# Pictures of all autoencoders: the file, the heading, and what to look for.
_GALLERIES = (
    ('reconstructions.png', 'Reconstructions', 'Images, and below them D(E(x)) of each autoencoder.'),
    (
        'rotated.png',
        'Latents rotated by 90°, decoded',
        'Rotated images τx, and below them D(τE(x)): of an equivariant autoencoder they look the same.',
    ),
    (
        'halved.png',
        'Latents at half the size, decoded',
        'Images τx at half the size, and below them D(τE(x)): of an equivariant autoencoder they look the same.',
    ),
    (
        'latents.png',
        'Latents as PCA colours',
        'Images, and below them the latents E(x), in one basis of colours where latents mean the same.',
    ),
)
_GLOSSARY = '../../glossary.md'  # of pages in docs/results/NAME
_FILES = (
    'All numbers, of each seed, are in [results.csv](results.csv); with the cards that say how they were measured in '
    '[results.json](results.json).'
)
_NOTES = {
    'Gates': 'Conditions that an autoencoder has to meet, in each seed, before a generator is trained on it.',
    'Differences': 'Seed by seed: mean ± standard deviation, and in how many seeds the sign is that of the mean.',
    'Over training steps': (
        "The speed-up is the control's last step over the step at which its last score is reached; ≥ marks a lower "
        'bound, where the first measured step has reached it in some seed.'
    ),
    'Predictors': (
        "Spearman's rank correlation between a metric of the autoencoder and the score of the generator (lower is "
        'better): over the means of autoencoders, and over all their seeds, which are not independent. Expected is the '
        f'sign if the metric predicts as it should; none is stated of fewer than {MIN_POINTS} points.'
    ),
}
_PLOTS = {
    'curves.svg': 'The score over training steps',
    'metrics.svg': 'Every metric of every arm, a point each seed',
    'predictors.svg': 'The score over each predictor',
}


def report_study(
    study: Study,
    plan: StudyPlan,
    seeds: Sequence[int],
    folder: Path,
    *,
    words: Sequence[str],
    record: Sequence[Mapping[str, Any]] = (),
    into: str | None = None,
    failures: Sequence[str] = (),
) -> None:
    """Write README.md, results.csv, results.json, plots and pictures to `folder`.

    `reconstructions.png`, `rotated.png`, `halved.png` and `latents.png` show all autoencoders, `before_and_after.png`
    the first one with a control, and its control. What gates have stopped is not in it, even if another study or an
    earlier run has measured it.

    Args:
        study: The grid.
        plan: Its stages; all that the gates admit are done, unless there are `failures`.
        seeds: The seeds of the plan.
        folder: Created if it does not exist.
        words: The study's config file and its overrides, as on the command line.
        record: When criterion and gates were written down; see `write_down`.
        into: A Markdown file to put the tables into as well; see `put_into`.
        failures: The stages that failed, with their errors. Then nothing is written if there is no score yet.

    Raises:
        ValueError: If results were measured differently, or `into` has no place for the tables.
    """
    keeper = Gatekeeper(study, plan)
    scores = collect_scores(study, plan, seeds, keeper)
    if failures and not scores:
        return
    folder.mkdir(parents=True, exist_ok=True)
    origin = _origin(plan, keeper)
    found = predictions(study, scores)
    judgements = [] if study.criterion is None else judge(study, _final(scores, plan), seeds)
    tables = {
        'Criterion': criterion_table(study, judgements),
        'Gates': gate_table(study, keeper, plan),
        'Autoencoders': autoencoder_table(study, scores),
        'Generators': generator_table(study, scores),
        'Differences': difference_table(study, scores),
        'Over training steps': curve_table(study, scores),
        'Predictors': predictor_table(study, found),
    }
    tables = {title: lines for title, lines in tables.items() if lines}
    plots = {
        'curves.svg': plot_curves(study, scores, folder / 'curves.svg'),
        'metrics.svg': plot_metrics(study, scores, folder / 'metrics.svg'),
        'predictors.svg': plot_predictions(found, [*study.autoencoders], folder / 'predictors.svg'),
    }
    pictured = _draw_pictures(study, plan, scores, folder)
    content = {
        **{'study': study.name, 'title': study.title, 'claim': study.claim, **origin},
        'overrides': [*words[1:]],
        'written_down': [*record],
        'failures': [*failures],
        'judgements': [each.as_json() for each in judgements],
        'gates': gate_records(keeper, plan),
        'predictors': [each.as_json() for each in found],
        **_with_protocols(scores),
    }
    head = _head(study, scores, origin, record, tables.get('Criterion', []), failures)
    shown = [name for name, is_drawn in plots.items() if is_drawn]
    terms = _terms(study, scores, tables)
    glossary = _GLOSSARY if (folder / _GLOSSARY).is_file() else None
    body = _body(study, scores, seeds, tables, terms, shown, pictured, glossary)
    page = [*head, *body, *_foot(scores, [*words, '--seeds', str(len(seeds))], origin)]
    for name, text in (
        ('results.csv', _csv(scores)),
        ('results.json', json.dumps(content, indent=1, default=str) + '\n'),
        (_PAGE, '\n'.join(page) + '\n'),
    ):
        with replacing(folder / name) as temporary:
            temporary.write_text(text)
    if into is not None:
        main = [title for title in ('Autoencoders', 'Generators') if title in tables]
        put_into(Path(into), study.name, [line for title in main for line in (f'{title}:', '', *tables[title], '')])
    print('\n'.join(line for title, lines in tables.items() for line in ('', title, '', *lines)))
    print(f'\nWritten: {folder / _PAGE}, results.csv, results.json, plots and pictures')


def _final(scores: Iterable[Score], plan: StudyPlan) -> list[Score]:
    """Return the scores after each generator's last step: if this is missing, earlier ones do not stand for it."""
    return [each for each in scores if each.generator and each.step == plan.steps[each.generator][-1]]


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


def _head(
    study: Study,
    scores: Sequence[Score],
    origin: Mapping[str, Any],
    record: Sequence[Mapping[str, Any]],
    judged: Sequence[str],
    failures: Sequence[str],
) -> list[str]:
    """Return the title, failed stages, the claim, and the criterion with the verdicts."""
    page = [f'# {_title(study)}', '']
    if failures:
        page += ['**Not complete.** These stages failed, and all that needs them is missing below:', '']
        page += [*(f'- {escape_markdown(each)}' for each in failures), '']
    page += [f'The paper: {study.claim}', ''] if study.claim else []
    if study.criterion is not None:
        page += ['## Criterion', '', *criterion_lines(study, scores), '']
        page += [
            f'- written down: {date_of_criterion(record) or "unknown"}',
            f'- first stage begun, here or by a study that shares it: {origin["first_stage"] or "unknown"}',
            f'- first test of a generator begun: {origin["first_test_of_a_generator"] or "none"}',
            '',
            *judged,
            '',
        ]
    if changed := changes_since(record):
        page += ['Changed since the study was begun:', '', *changed, '']
    return page


def _terms(
    study: Study, scores: Sequence[Score], tables: Mapping[str, Sequence[str]]
) -> dict[str, list[tuple[str, str]]]:
    """Return for each table the terms that appear in it first, each with its meaning."""
    measured = {
        kind: [metric for metric in columns if any(metric in each.metrics for each in scores)]
        for kind, columns in study.columns.items()
    }
    appear = {
        'Criterion': ([], [study.criterion.metric] if study.criterion else []),
        'Gates': ([], [gate.metric for gate in study.gates.values()]),
        'Autoencoders': ([*{each.autoencoder: None for each in scores}], measured['autoencoder']),
        'Generators': ([*{each.generator: None for each in scores if each.generator}], measured['generator']),
        'Predictors': ([], [*study.predictors]),
    }
    known: set[str] = set()
    terms = {}
    for title in tables:
        names, metrics = appear.get(title, ([], []))
        found = arm_meanings(names)
        # 'error: rotation' and 'error: scale' are errors
        found |= {heading(metric, arrow=False).partition(':')[0]: meaning(metric) for metric in metrics}
        terms[title] = [(term, words) for term, words in found.items() if words and term not in known]
        known |= found.keys()
    return terms


def _explain(terms: Iterable[tuple[str, str]], glossary: str | None) -> list[str]:
    """Return a list of terms, with a link to the glossary if there is one."""
    lines = [f'- **{escape_markdown(term)}**: {words}' for term, words in terms]
    more = [f'- more terms in the [glossary]({glossary})'] if glossary else []
    return [*lines, *more, ''] if lines else []


def _body(
    study: Study,
    scores: Sequence[Score],
    seeds: Sequence[int],
    tables: Mapping[str, Sequence[str]],
    terms: Mapping[str, Sequence[tuple[str, str]]],
    plots: Sequence[str],
    pictured: int | None,
    glossary: str | None,
) -> list[str]:
    """Return all tables but the criterion's, the plots and the pictures, which are of the seed `pictured`."""
    seeded = [*(['start'] if any(arm.start for arm in study.autoencoders.values()) else []), 'fine-tuning']
    seeded += ['generator', 'samples'] if study.generators else []
    count = counted(len(seeds), 'seed')
    tested = [
        sum(each.autoencoder == name and each.generator is None for each in scores) for name in study.autoencoders
    ]
    count = (count if {*tested} == {len(seeds)} else f'up to {count}') + study.which_seeds(len(seeds))
    page = [f'Mean ± standard deviation over {count} of {", ".join(seeded)}.', ''] if scores else []
    page += _explain(terms.get('Criterion', []), None)
    for title, lines in tables.items():
        if title != 'Criterion':
            notes = [_NOTES[title], ''] if title in _NOTES else []
            page += [f'## {title}', '', *notes, *lines, '', *_explain(terms[title], glossary)]
    page += ['## Plots', ''] if plots else []
    for name in plots:
        page += [_picture(_PLOTS[name], name), '']
    if pictured is not None:
        page += ['## Pictures', '', f'Seed {pictured}. A click opens a picture in its full size.', '']
        page += _explain(SYMBOLS.items(), None)
        for name, title, words in _GALLERIES:
            page += [f'### {title}', '', words, '', _picture(title, name), '']
    return page


def _picture(title: str, name: str) -> str:
    return f'[![{title}]({name})]({name})'


def _foot(scores: Sequence[Score], words: Sequence[str], origin: Mapping[str, Any]) -> list[str]:
    """Return how the study was made: its command, of which `words` follow the tool, and facts."""
    return [
        '## How it was made',
        '',
        '```console',
        f'$ {shlex.join(["python", "tools/study.py", *words])}',
        '```',
        '',
        *[f'- {name}: {value}' for name, value in _facts(origin, scores)],
        '',
        _FILES,
    ]


def _title(study: Study) -> str:
    return f'{study.title}, on {study.data}' if study.data else study.title


def _facts(origin: Mapping[str, Any], scores: Sequence[Score]) -> list[tuple[str, str]]:
    hardware = origin['hardware'][0]
    versions = {
        name: hardware[name] for name in ('python', 'torch', 'diffusers', 'timm', 'mmengine-lite') if name in hardware
    }
    threads = f'{counted(hardware["threads"], "thread")} a stage'
    chip = hardware['gpu'] or hardware['processor']
    minutes = f'{origin["seconds"] / 60:.0f} minutes one after the other'
    facts = [
        ('machine', f'{chip}, {hardware["cores"]} cores, {hardware["memory_gib"]} GiB; {threads}'),
        ('versions', ', '.join([f'eqzoo {__version__}', *(f'{name} {value}' for name, value in versions.items())])),
        ('stages', f'{origin["num_stages"]}, {minutes}; those that other studies share are counted too'),
    ]
    for card in [each.card for each in scores[:1]]:
        facts.append(('autoencoders tested on', f'{card["num_images"]} images, {_data(card["data"])}'))
    sampled = next((each.card for each in scores if each.generator), None)
    if sampled:
        features = [_extractor(its['extractor']) for its in sampled['evaluators'].values() if 'extractor' in its]
        facts.append(('generators tested by', '; features: '.join([f'{sampled["num_images"]} samples', *features[:1]])))
    return facts


def _data(data: Mapping[str, Any]) -> str:
    return ', '.join(f'{name} {value}' for name, value in data.items() if name != 'sha256' and value not in (None, ''))


def _extractor(card: Mapping[str, Any]) -> str:
    return f'{card["network"]}, images resized to {card["resize"]}' if 'resize' in card else card['network']


def _origin(plan: StudyPlan, keeper: Gatekeeper) -> dict[str, Any]:
    """Return the machines that ran the stages, their total time in seconds, and when the first ones began."""
    admitted = [stage for stage in plan.stages.values() if keeper.admits(stage)]
    tests = [stage for stage in plan.scored.values() if keeper.admits(stage)]
    records = [record for stage in admitted if (record := stage.record())]
    machines: list[dict[str, Any]] = []
    for record in records:
        if record['hardware'] not in machines:
            machines.append(record['hardware'])
    return {
        'eqzoo': __version__,
        'hardware': machines,
        'num_stages': len(records),
        'seconds': round(sum(record['seconds'] for record in records)),
        'first_stage': _first_date(records),
        'first_test_of_a_generator': _first_date(record for stage in tests if (record := stage.record())),
    }


def _first_date(records: Iterable[Mapping[str, Any]]) -> str | None:
    """Return when the first of some stages began; records of eqzoo before it had criteria do not say."""
    return min((record['begun'] for record in records if 'begun' in record), default=None)


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
        values = [_csv_value(each.metrics[name]) if name in each.metrics else '' for name in metrics]
        rows.append([each.autoencoder, each.generator or '', each.step or '', each.seed, *values])
    return csv_text(rows)


def _csv_value(value: float | None) -> str:
    return 'nan' if value is None else repr(value)  # JSON has None for what is not a number


def _draw_pictures(study: Study, plan: StudyPlan, scores: Sequence[Score], folder: Path) -> int | None:
    """Draw the galleries of the seed with the most autoencoders; return it, or None if none was tested."""
    tested: dict[int, list[str]] = {}
    for each in scores:
        if each.generator is None:
            tested.setdefault(each.seed, []).append(each.autoencoder)
    if not tested:
        return None
    seed = max(sorted(tested), key=lambda each: len(tested[each]))
    for (name, _, _), rows in zip(_GALLERIES, gallery_rows(plan, tested[seed], seed), strict=True):
        save_picture(draw_grid(rows), folder / name)
    pairs = [(study.autoencoders[name].against, name) for name in tested[seed]]
    pair = next((pair for pair in pairs if pair[0] in tested[seed]), None)
    if pair is not None:
        groups = zip(_GALLERIES, gallery_rows(plan, pair, seed), strict=True)
        rows = [row for (_, title, _), (first, *more) in groups for row in (first._replace(heading=title), *more)]
        save_picture(draw_grid(rows), folder / 'before_and_after.png')
    return seed


@torch.no_grad()
def gallery_rows(plan: StudyPlan, names: Sequence[str], seed: int) -> list[list[PictureRow]]:
    """Return the rows of each of the four galleries: what should be seen, then a row for each autoencoder.

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
    latents = {name: model.latents(images) for name, model in models.items()}
    groups = [[PictureRow('image x', images)]]
    groups[0] += [PictureRow(name, _decoded(model, latents[name])) for name, model in models.items()]
    for label, (tau, params) in default_cases(next(iter(models.values())).grid(*images.shape[-2:])).items():
        decoded = {name: _decoded(model, tau(latents[name], params)) for name, model in models.items()}
        targets = PictureRow(f'image {label}, τx', tau(images, params))
        groups.append([targets, *(PictureRow(name, each) for name, each in decoded.items())])
    bases = share_bases(latents)
    colours = [PictureRow(name, bases[name].basis.colours(its), fills=True) for name, its in latents.items()]
    return [*groups, [PictureRow('image x', images), *colours]]


def _decoded(model: Autoencoder, latents: torch.Tensor) -> torch.Tensor:
    return model.decode(model.normalization.denormalize(latents))
