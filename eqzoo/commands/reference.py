"""`tools/reference.py`: statistics of a reference set, in the layout of ADM's evaluator."""

from pathlib import Path

from eqzoo.distributed import close_distributed, init_distributed, rank_and_world_size
from eqzoo.engine.references import build_extractor, make_reference, open_images, reference_of_config


def reference(
    images: str,
    out: str,
    *,
    overrides: list[str],
    extractor: str = 'FIDInception',
    size: int = 256,
    crop: str = 'center',
    limit: int | None = None,
    num_stored: int = 10_000,
    labels: str = 'balanced',
    batch_size: int = 64,
    num_workers: int = 0,
    overwrite: bool = False,
) -> None:
    """Measure a reference set, and write its statistics and some of its images to an npz file.

    Args:
        images: A folder, a zip or an npz file of images; or a generator's config, whose test_evaluators
            say what is measured on which features: each test would measure it anew.
        out: The npz file to write.
        overrides: Keys of the config to set, as key=value.
        extractor: FIDInception for FID; EfficientNetLite0 needs no download. A config names its own.
        size: Pixels of a side, of the samples to be compared with it.
        crop: How images become squares: center is ADM's.
        limit: Use at most this many images.
        num_stored: Images to keep in the file, for precision, recall, KID and swd; 10,000 in ADM's files.
        labels: Which images these are: balanced, alike many of each class; or random.
        batch_size: Images at once, over all processes.
        num_workers: Processes that read images.
        overwrite: Replace OUT if it is there.
    """
    if labels not in ('balanced', 'random'):
        raise ValueError(f'--labels must be balanced or random, got {labels!r}.')
    if Path(out).exists() and not overwrite:
        raise ValueError(f'{out} is there already; --overwrite replaces it.')
    if images.endswith('.py'):
        data, network = reference_of_config(images, overrides)
    elif overrides:
        raise ValueError(f'{overrides[0]}: keys are set in a config, and {images} is none; leave them out.')
    else:
        data, network = open_images(images, size, crop, limit), build_extractor(extractor)
    init_distributed()
    loading = (batch_size, num_workers)
    made = make_reference(data, network, Path(out), num_stored=num_stored, labels=labels, loading=loading)
    if rank_and_world_size()[0] == 0:
        print(data.describe())
        print(f'Written: {out}, statistics of {len(data)} images on {network.key}; {made} images are kept in it.')
    close_distributed()
