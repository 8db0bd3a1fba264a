"""Stages of a study that are done without having been run: a record, and a metrics.json."""

import json
import math

from eqzoo.studies.stages import Stage, StageCommand


def fake_card(metrics, **changes):
    """A card that names one evaluator of all metrics."""
    evaluators = {'Evaluator': {'metrics': [*metrics]}}
    return {'data': {'kind': 'Shapes', 'seed': 0}, 'num_images': 8, 'evaluators': evaluators, **changes}


def finish(stage, metrics, **changes):
    """Write what a stage that tests an autoencoder or a generator leaves behind."""
    stage.folder.mkdir(parents=True, exist_ok=True)
    values = {name: None if math.isnan(value) else value for name, value in metrics.items()}
    content = {'metrics': values, 'card': fake_card(metrics, **changes)}
    (stage.folder / 'metrics.json').write_text(json.dumps(content))
    hardware = dict(gpu=None, processor='none', cores=2, memory_gib=1, threads=1)
    stage.write_record(dict(name=stage.name, seconds=1.0, begun='2026-01-02T03:04:05+00:00', hardware=hardware))


def fake_stage(folder, name):
    """A stage that is not done."""
    return Stage(name, folder / name.replace(' ', '-'), (StageCommand('test', ('c.py',)),))
