"""`tools/score.py`: compare a set of samples with a reference."""

from pathlib import Path
from typing import Any


def score(
    samples: str,
    reference: str,
    *,
    extractor: str = 'FIDInception',
    metrics: str | None = None,
    min_images: int | None = None,
    crop: str = 'center',
    batch_size: int = 64,
    num_workers: int = 0,
    out: str | None = None,
) -> dict[str, Any]:
    """Compare a set of samples with a reference set; write metrics.json and report.html.

    Args:
        samples: A folder or zip of images of one size, or an npz file of samples in ADM's layout.
        reference: An npz file of statistics (ADM's, or from tools/reference.py), or images: a
            folder, a zip or an npz file, whose statistics are then measured and kept in OUT.
        extractor: FIDInception for FID and published numbers; EfficientNetLite0 needs no download.
        metrics: Of fd, sfd, is, pr, kid and swd, separated by commas. Default: all that extractor and reference allow.
        min_images: Fewer samples are refused. Default: one more than there are features.
        crop: How images of a reference are cropped to squares.
        batch_size: Images per batch, over all processes.
        num_workers: Processes that read images.
        out: The folder for results. Default: work_dirs/score/SAMPLES.
    """
    from eqzoo.data import build_eval_loader
    from eqzoo.distributed import close_distributed, init_distributed, rank_and_world_size
    from eqzoo.engine.evaluation import evaluate, sample_view
    from eqzoo.engine.references import build_extractor, open_samples
    from eqzoo.engine.work_dir import REPORT_LOCK, own_folder
    from eqzoo.report.page import save_result

    folder = Path(out or Path('work_dirs/score') / Path(samples).stem)
    data = open_samples(samples)
    network = build_extractor(extractor)
    init_distributed()
    with own_folder(folder, '--out', REPORT_LOCK):
        statistics = _reference(reference, network, data.size, crop, folder, (batch_size, num_workers))
        evaluators = _evaluators(network, statistics, metrics, min_images)
        rank, world_size = rank_and_world_size()
        loader = build_eval_loader(
            data, batch_size=batch_size, num_workers=num_workers, rank=rank, world_size=world_size
        )
        result = evaluate(evaluators, loader, sample_view)
        result['card'] = {'samples': samples, **result['card']}
        if rank == 0:
            save_result(result, {'Samples': _grid(data)}, folder, Path(samples).stem)
    close_distributed()
    return result


def _reference(path: str, extractor: Any, size: int, crop: str, folder: Path, loading: tuple[int, int]) -> str:
    """Return the file of statistics: `path`, or one measured from its images with this extractor."""
    from eqzoo.engine.references import make_reference, open_images
    from eqzoo.npz import NpzArchive

    if Path(path).suffix == '.npz' and 'mu' in NpzArchive(path):
        return path
    made = folder / f'reference_{extractor.key}.npz'
    print(f'Measuring the reference {path} …')
    make_reference(open_images(path, size, crop), extractor, made, loading=loading)
    return str(made)


def _evaluators(extractor: Any, reference: str, metrics: str | None, min_images: int | None) -> list[Any]:
    from eqzoo.evaluators import GenerationMetric, GenerationSlicedWasserstein

    chosen = None if metrics is None else [name.strip() for name in metrics.split(',')]
    features = chosen if chosen is None else [name for name in chosen if name != 'swd']
    evaluators: list[Any] = []
    if features is None or features:
        evaluators.append(GenerationMetric(extractor, reference, features, min_images=min_images))
    if chosen is None or 'swd' in chosen:
        sliced = GenerationSlicedWasserstein(reference)
        if chosen is not None or sliced.reference.has_images:
            evaluators.append(sliced)
    return evaluators


def _grid(data: Any, columns: int = 8, rows: int = 4) -> Any:
    from eqzoo.engine.picture_hooks import example_images
    from eqzoo.pictures import PictureRow, draw_grid

    images = example_images(data, columns * rows)
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    full = [row for row in rows if len(row) == len(rows[0])]
    return draw_grid([PictureRow('', row) for row in full])
