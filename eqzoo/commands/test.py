"""`tools/test.py`: evaluate an autoencoder on images, or a generator by its samples."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from eqzoo.config import Config, load_config, require
from eqzoo.files import with_a_name
from eqzoo.registry import build
from eqzoo.registry.ranges import PositiveInt
from eqzoo.text import shell_word

_COLUMNS = 8


def test(
    config_file: str,
    checkpoint: str | None = None,
    *,
    overrides: list[str],
    smoke: bool = False,
    images: PositiveInt = 8,
    samples: str | None = None,
) -> dict[str, Any]:
    """Evaluate a config; write metrics.json, report.html and pictures to its work directory.

    For an autoencoder, this measures the reconstructions of `test_dataloader`; for a generator, `sampling.num_samples`
    generated images.

    Args:
        config_file: A Python config, such as configs/eqvae/sdxl_rot_scale.py.
        checkpoint: A training checkpoint or a weights file. Default: the newest checkpoint
            in the work directory, or the config's own weights if there is none.
        overrides: Keys of the config to set, as key=value.
        smoke: Shrink network and data as in `train.py --smoke`; everything is written below work_dirs/smoke.
        images: Number of columns in an autoencoder's picture grid.
        samples: For a generator: a folder or an npz file to save its images to, as in tools/sample.py.
    """
    config = load_config(config_file, overrides)
    require(config, 'evaluation', 'model.autoencoder', 'test_dataloader|sampling', 'test_evaluators|evaluators')

    from eqzoo.checkpoints.read import weights_sha256
    from eqzoo.distributed import close_distributed, get_device, init_distributed, rank_and_world_size, use_device
    from eqzoo.engine import shrink
    from eqzoo.engine.evaluation import autoencoder_view, evaluate
    from eqzoo.engine.picture_hooks import example_images
    from eqzoo.engine.preflight import check_ready
    from eqzoo.engine.runner import build_evaluators, eval_loader
    from eqzoo.engine.smoke import smoke_path
    from eqzoo.engine.work_dir import REPORT_LOCK, own_folder
    from eqzoo.pictures import autoencoder_rows, draw_grid
    from eqzoo.precision import use_backends
    from eqzoo.report.page import save_result

    use_device(config.device)
    use_backends(config.get('gpu'))
    if smoke:
        config, samples = shrink(config), samples if samples is None else str(smoke_path(samples))
    if 'generator' in config.model:
        return measure_samples(config, checkpoint, samples if samples is None else str(with_a_name(samples)))
    if samples is not None:
        raise ValueError(f'--samples: {config_file} describes an autoencoder, which has no samples; leave it out.')
    require(config, 'evaluation', 'test_dataloader')
    start = config.model.autoencoder.get('weights')
    weights = _choose_weights(config, checkpoint)
    # checked for missing files: only what is evaluated, neither training data nor losses
    needed = Config(
        dict(
            autoencoder=config.model.autoencoder,
            test_dataloader=config.test_dataloader,
            test_evaluators=_evaluators(config),
        ),
        filename=config.filename,
    )
    datasets = check_ready(needed, f'python tools/test.py {shell_word(config_file)}', tuple(needed))
    init_distributed()
    with own_folder(config.work_dir, lock_name=REPORT_LOCK):
        autoencoder = build(needed.autoencoder).to(get_device()).eval()
        loader = eval_loader(config.test_dataloader, datasets.get('test_dataloader.dataset'))
        device = autoencoder.last_layer.device
        evaluators = build_evaluators(needed.test_evaluators, datasets, 'test_evaluators')
        result = evaluate(evaluators, loader, partial(autoencoder_view, autoencoder))
        card = {'config': config_file, 'weights': {'file': weights, 'sha256': weights_sha256(weights)}}
        if _is_before(config, start, weights):
            card['started_from'] = {'file': start, 'sha256': weights_sha256(start)}
        result['card'] = {**card, **result['card']}
        if rank_and_world_size()[0] == 0:
            examples = example_images(loader.dataset, images).to(device)
            arms = {'': autoencoder}
            if 'started_from' in card:
                before = build({**needed.autoencoder, 'weights': start}).to(device).eval()
                arms = {'before training': before, 'after training': autoencoder}
            pictures = {'Test': draw_grid(autoencoder_rows(arms, examples))}
            save_result(result, pictures, Path(config.work_dir), Path(config_file).stem)
    close_distributed()
    return result


def measure_samples(config: Config, checkpoint: str | None = None, samples: str | None = None) -> dict[str, Any]:
    """Sample from a generator and measure the images; write metrics.json, report.html and a grid.

    Args:
        config: Of a generator, from `load_config`.
        checkpoint: As in `tools/sample.py`.
        samples: Where to write the images as well; existing ones are not drawn again.

    Returns:
        The content of `metrics.json`.
    """
    import torch

    from eqzoo.checkpoints.read import weights_sha256
    from eqzoo.distributed import close_distributed, init_distributed, rank_and_world_size
    from eqzoo.engine.evaluation import SampleBatches, evaluate, sample_view
    from eqzoo.engine.references import measured_references
    from eqzoo.engine.runner import build_evaluators
    from eqzoo.engine.sampling import (
        build_image_sampler,
        check_has_sampling,
        check_sampling_ready,
        claim_sample_files,
        generator_weights,
        identity,
    )
    from eqzoo.engine.work_dir import REPORT_LOCK, own_file, own_folder
    from eqzoo.pictures import draw_grid, sample_rows
    from eqzoo.report.page import save_result

    check_has_sampling(config)
    weights = generator_weights(config, checkpoint)
    command = f'python tools/test.py {shell_word(config.filename)}'
    evaluators = _evaluators(config)
    check_sampling_ready(config, weights, command, more=dict(test_evaluators=evaluators))
    init_distributed()
    folder = Path(config.work_dir)
    with own_folder(folder, lock_name=REPORT_LOCK), own_file(samples, '--samples') if samples else nullcontext():
        draw = build_image_sampler(config, weights)
        batch_size = config.sampling.batch_size
        evaluators = build_evaluators(measured_references(evaluators, folder, draw, batch_size=batch_size))
        files = None if samples is None else claim_sample_files(samples, config, weights, draw.autoencoder)
        sampling = config.sampling
        loader = SampleBatches(
            draw,
            sampling.num_samples,
            batch_size=batch_size,
            identity=identity(config),
            files=files,
            with_latents=any(evaluator.needs_latents for evaluator in evaluators),
        )
        result = evaluate(evaluators, loader, sample_view)
        result['card'] = {
            'config': config.filename,
            'weights': {'file': weights, 'sha256': weights_sha256(weights)},
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


def _evaluators(config: Config) -> Any:
    """Return the configs of the evaluators of a test: `test_evaluators`, or those of validation if there are none."""
    return config.test_evaluators if config.get('test_evaluators') is not None else config.evaluators


def _is_before(config: Config, start: Any, weights: Any) -> bool:
    """Return whether `weights` are of a run that started from the weights `start`, and these are on this machine."""
    from eqzoo.zoo import weights_requirements

    if not start or weights == start or Path(config.work_dir).resolve() not in Path(weights).resolve().parents:
        return False  # weights from elsewhere may have started from others
    return not weights_requirements('weights', start)


def _choose_weights(config: Config, checkpoint: str | None) -> str:
    """Point the autoencoder's config at the weights to evaluate, and return their path."""
    from eqzoo.engine import latest_checkpoint

    latest = latest_checkpoint(config.work_dir)
    chosen = checkpoint or (str(latest) if latest else config.model.autoencoder.get('weights'))
    if not chosen:
        raise ValueError(
            f'Nothing to evaluate: {config.work_dir} has no checkpoint and the config names no weights. '
            f'Train first (python tools/train.py {shell_word(config.filename)}) or give a CHECKPOINT.'
        )
    config.model.autoencoder.weights = chosen
    return chosen
