"""`tools/test.py` of a generator's config: sample, decode, measure."""

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import Tensor

from eqzoo.commands.reference import measured_references
from eqzoo.commands.results import save_result
from eqzoo.commands.sample import check_parts, check_samples, claim_files
from eqzoo.distributed import close_distributed, init_distributed, rank_and_world_size
from eqzoo.engine.autoencoder_training import to_float
from eqzoo.engine.evaluation import evaluate
from eqzoo.engine.runner import build_evaluators
from eqzoo.engine.sample_batches import SampleBatches
from eqzoo.engine.sampling import build_image_sampler, generator_weights, identity, sha256_of
from eqzoo.evaluators import SampleView
from eqzoo.pictures import draw_grid, sample_rows

_COLUMNS = 8


def measure_samples(config: Config, checkpoint: str | None = None, samples: str | None = None) -> dict[str, Any]:
    """Sample from a generator and measure the images; write metrics.json, report.html and a grid.

    Args:
        config: Of a generator, as `load_config` returns it.
        checkpoint: As `tools/sample.py` takes it.
        samples: Where to write the images too; those that are there already are not drawn again.

    Returns:
        As `metrics.json` holds it.
    """
    check_samples(config)
    weights = generator_weights(config, checkpoint)
    command = f'python tools/test.py {config.filename}'
    check_parts(config, weights, command, test_evaluators=config.test_evaluators)
    init_distributed()
    folder, device = Path(config.work_dir), get_device()
    draw = build_image_sampler(config, weights)
    evaluators = build_evaluators(measured_references(config.test_evaluators, folder))
    files = None if samples is None else claim_files(samples, config, weights)
    sampling = config.sampling
    loader = SampleBatches(
        draw, sampling.num_samples, batch_size=sampling.batch_size, identity=identity(config), files=files
    )
    result = evaluate(evaluators, loader, lambda images, numbers: _view(images.to(device), numbers))
    result['card'] = {
        'config': config.filename,
        'weights': {'file': weights, 'sha256': sha256_of(weights)},
        **result['card'],
    }
    if rank_and_world_size()[0] == 0:
        if files is not None:
            files.finish(draw.labels_of(range(sampling.num_samples)).tolist())
        examples = torch.stack(loader.examples)
        rows = sample_rows(lambda numbers: examples[list(numbers)], loader.example_labels, columns=_COLUMNS)
        save_result(result, {'Samples': draw_grid(rows)}, folder, Path(config.filename).stem)
    close_distributed()
    return result


def _view(images: Tensor, numbers: Tensor) -> SampleView:
    return SampleView(to_float(images), numbers)
