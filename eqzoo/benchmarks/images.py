"""Benchmarks of reading images: tar shards and tables beside the loaders of the libraries that write them."""

import io
import tarfile
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from eqzoo.benchmarks.measure import alternate, peak_memory
from eqzoo.data import ImageFolder, RunSampler, Shapes, build_train_loader
from eqzoo.data.crops import CROPS
from eqzoo.data.decoding import decode

_CPU = torch.device('cpu')


def write_containers(folder: Path, *, num_images: int, size: int, num_shards: int) -> dict[str, Path]:
    """Write the built-in pictures as JPEG files into tar shards, a parquet folder and a data set of `datasets`.

    Args:
        folder: The folder to write to.
        num_images: Number of pictures.
        size: Pixels a side.
        num_shards: Files of each container.

    Returns:
        The folders of 'tar', 'parquet' and 'datasets'.
    """
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures = Shapes(num_images, size)
    generator = np.random.default_rng(0)
    files, labels = [], []
    for index in range(num_images):
        item = pictures[index]
        # noise, since photographs do not pack as well as drawings do
        noise = generator.integers(-24, 25, (size, size, 3))
        pixels = (item['image'].permute(1, 2, 0).numpy() + noise).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, 'jpeg', quality=90)
        files.append(buffer.getvalue())
        labels.append(item['label'])
    found = {name: folder / name for name in ('tar', 'parquet', 'datasets')}
    for path in list(found.values())[:2]:
        path.mkdir(parents=True)
    bounds = [num_images * shard // num_shards for shard in range(num_shards + 1)]
    for shard, (start, stop) in enumerate(pairwise(bounds)):
        with tarfile.open(found['tar'] / f'{shard:04d}.tar', 'w') as archive:
            for index in range(start, stop):
                for ending, content in (('jpg', files[index]), ('cls', str(labels[index]).encode())):
                    info = tarfile.TarInfo(f'{index:08d}.{ending}')
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        images = [dict(bytes=content, path=None) for content in files[start:stop]]
        table = pa.table(dict(image=images, label=labels[start:stop]))
        pq.write_table(table, found['parquet'] / f'train-{shard:04d}.parquet')
    features = datasets.Features(image=datasets.Image(decode=False), label=datasets.Value('int64'))
    datasets.disable_progress_bars()
    columns = dict(image=[dict(bytes=content, path=None) for content in files], label=labels)
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(found['datasets']), num_shards=num_shards)
    return found


def compare_loading(
    folder: Path, *, num_images: int, size: int, num_shards: int, batch_size: int, num_workers: int, rounds: int
) -> Iterator[tuple[str, str, float, float]]:
    """Yield container, work, and images/s of eqzoo and of the container's own library, shuffled, in batches.

    Work is 'bytes', the reading alone in one process, and 'batches', which adds decoding, a centre crop to three
    quarters of the side and the loader's processes, with the same functions on both sides. WebDataset shuffles shards,
    and samples in a buffer of 1,000; parquet is read by `datasets`, in the Arrow files that it makes of it. Ways take
    turns, and the fastest pass of each counts.

    Args:
        folder: The folder to write to.
        num_images: Number of pictures.
        size: Pixels a side.
        num_shards: Files of each container.
        batch_size: Of the loaders.
        num_workers: Processes that read for each loader.
        rounds: Timed passes of each.
    """
    places = write_containers(folder, num_images=num_images, size=size, num_shards=num_shards)
    side = size * 3 // 4
    theirs: dict[str, Callable[[str], Any]] = {
        'tar': partial(_WebDataset, places['tar']),
        'parquet': partial(_Datasets, places['parquet']),
        'datasets': partial(_Datasets, places['datasets']),
    }
    for name, place in places.items():
        ours = ImageFolder(place, side)
        count = num_images // batch_size
        order = [index for index, _ in islice(RunSampler(num_images), num_images)]
        library = theirs[name](side)
        ways = {
            'eqzoo': lambda ours=ours, order=order: deque((ours.source.read(ours.names[i]) for i in order), maxlen=0),
            'library': lambda library=library, order=order: deque(library.contents(order), maxlen=0),
        }
        alternate(ways, 1)  # afterwards files are in the page cache
        yield name, 'bytes', *(num_images / min(each) for each in alternate(ways, rounds).values())
        loaders = {
            'eqzoo': iter(build_train_loader(ours, batch_size=batch_size, num_workers=num_workers, seed=0)),
            'library': iter(library.loader(batch_size, num_workers)),
        }
        passes = {key: lambda it=each, count=count: deque(islice(it, count), maxlen=0) for key, each in loaders.items()}
        alternate(passes, 1)  # afterwards workers are running
        yield name, 'batches', *(count * batch_size / min(each) for each in alternate(passes, rounds).values())


def reading_memory(folder: Path, rounds: int = 2) -> tuple[float, float]:
    """Return the process's peak memory in GiB after opening images, and after reading all of them several times."""
    dataset = ImageFolder(folder, 8)
    opened = peak_memory(lambda: dataset.source.read(dataset.names[0]), _CPU)

    def read() -> None:
        for _ in range(rounds):
            deque(map(dataset.source.read, dataset.names), maxlen=0)

    return opened, peak_memory(read, _CPU)


class _Pixels:
    """Decoding and a centre crop, as eqzoo's data sets do both."""

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, content: bytes, label: int) -> tuple[torch.Tensor, int]:
        pixels = CROPS['center'](decode(content), self.side, np.random.default_rng(0))
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))), label


class _WebDataset:
    """WebDataset's pipeline: shards and a buffer shuffled, endless."""

    def __init__(self, folder: Path, side: int) -> None:
        self.files, self.pixels = sorted(map(str, folder.glob('*.tar'))), _Pixels(side)

    def contents(self, order: list[int]) -> Iterator[bytes]:
        import webdataset

        samples = webdataset.WebDataset(self.files, shardshuffle=len(self.files), seed=0).shuffle(1000)
        return (sample['jpg'] for sample in samples)

    def loader(self, batch_size: int, num_workers: int) -> DataLoader:
        import webdataset

        options = dict(resampled=True, shardshuffle=False, seed=0, nodesplitter=webdataset.split_by_node)
        samples = webdataset.WebDataset(self.files, **options).shuffle(1000).map(self._item)
        return DataLoader(samples, batch_size, num_workers=num_workers)

    def _item(self, sample: dict[str, Any]) -> tuple[torch.Tensor, int]:
        return self.pixels(sample['jpg'], int(sample['cls']))


class _Datasets(Dataset):
    """Rows of `datasets`, at random."""

    def __init__(self, folder: Path, side: int) -> None:
        import datasets

        datasets.disable_progress_bars()
        if folder.name == 'parquet':
            files = sorted(map(str, folder.glob('*.parquet')))
            loaded = datasets.load_dataset('parquet', data_files=files, split='train', cache_dir=str(folder / '.cache'))
        else:
            loaded = datasets.load_from_disk(str(folder))
        self.rows = loaded.cast_column('image', datasets.Image(decode=False))
        self.pixels = _Pixels(side)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int]:
        row = self.rows[key[0]]
        return self.pixels(row['image']['bytes'], row['label'])

    def contents(self, order: list[int]) -> Iterator[bytes]:
        return (self.rows[index]['image']['bytes'] for index in order)

    def loader(self, batch_size: int, num_workers: int) -> DataLoader:
        sampler = RunSampler(len(self))
        return DataLoader(
            self, batch_size, sampler=sampler, num_workers=num_workers, persistent_workers=num_workers > 0
        )
