"""Evaluation of a data set in one pass: metrics, and a card of how they were measured."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from eqzoo import __version__
from eqzoo.autoencoders import Autoencoder
from eqzoo.data.loaders import with_reason
from eqzoo.data.samples import NpzSamples, PngSamples
from eqzoo.distributed import all_gather_object, get_device, rank_and_world_size, say_once
from eqzoo.engine.sampling import ImageSampler, batches
from eqzoo.evaluators.base import AutoencoderView, Evaluator, SampleView
from eqzoo.images import to_float

_NUM_EXAMPLES = 128
_MAX_NAMES = 8  # images named in a remark


def evaluate(
    evaluators: Sequence[Evaluator],
    loader: DataLoader,
    view_of: Callable[[Mapping[str, Any]], AutoencoderView | SampleView],
    *,
    title: str = 'test',
) -> dict[str, Any]:
    """Show every image of `loader` to all evaluators, over all processes, and return the result.

    Args:
        evaluators: With empty states.
        loader: Batches, every image once over all processes.
        view_of: From a batch, as `collate` makes it, to the view that evaluators look at.
        title: Of the progress bar.

    Returns:
        The content of `metrics.json`: `metrics` by name, `cases` (a transform's single cases, standard errors),
        `curves`, and the `card`, to which the caller adds the subject of the evaluation.

    Raises:
        ValueError: If the data set is too small for an evaluator or lacks classes it needs, before the first image; if
            no image is readable.
    """
    size = len(loader.dataset)
    check_evaluators(evaluators, loader.dataset)
    left_out: list[tuple[str, str]] = []
    enlarged: list[str] = []

    def views() -> Iterator[AutoencoderView | SampleView]:
        hidden = rank_and_world_size()[0] > 0
        batches = tqdm(loader, desc=title, unit='batch', disable=hidden, file=sys.stdout, mininterval=1)
        for batch in readable_batches(batches, left_out):
            enlarged.extend(batch.get('enlarged', [])[: max(0, _MAX_NAMES - len(enlarged))])
            yield view_of(batch)

    metrics = run_evaluators(evaluators, views(), size)
    reasons = dict(pair for pairs in all_gather_object(left_out) for pair in pairs)
    unreadable = sorted(reasons)
    if unreadable:
        named = _named([reasons.get(name, name) for name in unreadable])
        say_once(f'{title}: {len(unreadable)} unreadable images are left out: {named}.')
    if small := sorted(name for names in all_gather_object(enlarged) for name in names)[:_MAX_NAMES]:
        say_once(f'{title}: images smaller than the crop are enlarged, such as {", ".join(small)}.')
    values, cases = split_cases(merge_metrics(metrics))
    return {
        'metrics': values,
        'cases': cases,
        'curves': [curve for evaluator in evaluators for curve in evaluator.curves],
        'card': {
            'data': loader.dataset.identity(),
            'num_images': size - len(unreadable),
            'unreadable': unreadable,
            'evaluators': _cards(evaluators, metrics),
            'eqzoo': __version__,
            'torch': torch.__version__,
        },
    }


def readable_batches(
    batches: Iterable[Mapping[str, Any]], left_out: list[tuple[str, str]] | None = None
) -> Iterator[Mapping[str, Any]]:
    """Yield the batches of `build_eval_loader` that have images.

    Args:
        batches: Of this process.
        left_out: Gets the name of each unreadable image of this process, and the name with its reason.

    Raises:
        ValueError: After the last batch, if no process had an image.
    """
    left_out = [] if left_out is None else left_out
    has_images = False
    for batch in batches:
        left_out.extend((name, with_reason(name, batch.get('reasons', {}))) for name in batch.get('unreadable', ()))
        if len(batch['indices']):
            has_images = True
            yield batch
    if not any(all_gather_object(has_images)):
        raise ValueError(f'No image can be read: {_named([text for _, text in left_out])}; replace these files.')


def check_evaluators(evaluators: Sequence[Evaluator], dataset: Dataset) -> None:
    """Prepare evaluators for a data set.

    Raises:
        ValueError: If it is too small for one of them, lacks classes that one needs, or has images of another size
            or crop than those that one compares with.
    """
    labels = dataset.labels() if hasattr(dataset, 'labels') else None
    for evaluator in evaluators:
        evaluator.check(len(dataset))
        evaluator.check_labels(labels)
        evaluator.check_images(getattr(dataset, 'size', None), getattr(dataset, 'crop', None))


def autoencoder_view(autoencoder: Autoencoder, batch: Mapping[str, Any]) -> AutoencoderView:
    """Return the view of a batch whose images an autoencoder encodes; they move to its device."""
    images = to_float(batch['images'].to(autoencoder.last_layer.device))
    return AutoencoderView(autoencoder, images, batch['indices'], batch.get('labels'))


def sample_view(batch: Mapping[str, Any]) -> SampleView:
    """Return the view of a batch whose images are evaluated as they are; they stay uint8 and move to the device."""
    images = batch['images'].to(get_device())
    return SampleView(images, batch['indices'], batch.get('labels'), batch.get('latents'))


@torch.no_grad()
def run_evaluators(
    evaluators: Sequence[Evaluator], views: Iterable[AutoencoderView | SampleView], size: int
) -> list[dict[str, float]]:
    """Show views to all evaluators, which share the values a view computes, and return each evaluator's metrics.

    A metric name that an earlier evaluator has used gets a number: `psnr#2`.

    Args:
        evaluators: With empty states.
        views: Of every image once over all processes.
        size: The number of images.
    """
    for view in views:
        for evaluator in evaluators:
            evaluator.process(view)
    seen: dict[str, int] = {}
    metrics = []
    for evaluator in evaluators:
        own = {}
        for name, value in evaluator.evaluate(size).items():
            seen[name] = seen.get(name, 0) + 1
            own[name if seen[name] == 1 else f'{name}#{seen[name]}'] = value
        metrics.append(own)
    return metrics


def merge_metrics(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the metrics of all evaluators in one dict."""
    return {name: value for each in metrics for name, value in each.items()}


def split_cases(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metrics alone, and their single cases and standard errors."""
    cases = {name: value for name, value in values.items() if _is_case(name)}
    return {name: value for name, value in values.items() if name not in cases}, cases


def _named(unreadable: Sequence[str]) -> str:
    more = f' and {len(unreadable) - _MAX_NAMES} more' if len(unreadable) > _MAX_NAMES else ''
    return f'{", ".join(unreadable[:_MAX_NAMES])}{more}'


def _is_case(name: str) -> bool:
    """Whether a value is a part of a metric, `eq_err/rotation/90`, or its standard error, `eq_err/rotation_std`."""
    return name.count('/') == 2 or ('/' in name and name.endswith('_std'))


def _cards(evaluators: Sequence[Evaluator], metrics: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Return the evaluators' cards by class name; a second evaluator of a class gets a number, '#2'."""
    cards: dict[str, dict[str, Any]] = {}
    for evaluator, own in zip(evaluators, metrics, strict=True):
        name, number = type(evaluator).__name__, 1
        while name in cards:
            number += 1
            name = f'{type(evaluator).__name__}#{number}'
        cards[name] = {'metrics': [metric for metric in own if not _is_case(metric)], **evaluator.card()}
    return cards


class SampleBatches:
    """Batches of generated samples, in place of a loader; they are written only if `files` is given.

    With several processes each draws its own share.

    Args:
        draw: Draws images by number.
        num_samples: N, over all processes.
        batch_size: Of this process.
        identity: How they are drawn, for metric cards.
        files: Where samples are written, and read instead of drawn if they exist.
        with_latents: Batches also have the latents (B, C, h, w) that a generator of latents draws; those of samples
            in `files` are drawn again.

    `examples` and `example_labels` keep the first images of this process, on the CPU.
    """

    def __init__(
        self,
        draw: ImageSampler,
        num_samples: int,
        *,
        batch_size: int,
        identity: Mapping[str, Any],
        files: PngSamples | NpzSamples | None = None,
        with_latents: bool = False,
    ) -> None:
        self.dataset = _SampleSet(num_samples, draw.image_size, identity)
        self.draw, self.batch_size, self.files = draw, batch_size, files
        self.with_latents = with_latents and draw.generator.learns == 'latents'
        self.examples: list[Tensor] = []
        self.example_labels: list[int] = []

    def __len__(self) -> int:
        return -(-len(self._own()) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        existing = self.files.numbers() if self.files is not None else set()
        for numbers in batches(self._own(), self.batch_size):
            images, latents = self._drawn(numbers, existing)
            labels = self.draw.labels_of(numbers)
            room = _NUM_EXAMPLES - len(self.examples)
            self.examples += images[:room].cpu()
            self.example_labels += labels[:room].tolist()
            yield dict(images=images, labels=labels, latents=latents, indices=torch.tensor(numbers), unreadable=[])

    def _own(self) -> range:
        rank, world_size = rank_and_world_size()
        return range(rank, len(self.dataset), world_size)

    def _drawn(self, numbers: list[int], existing: set[int]) -> tuple[Tensor, Tensor | None]:
        """Return the samples `numbers`, uint8, and their latents if these are wanted, on the device.

        Samples in files are read, the others drawn and written.
        """
        missing = [number for number in numbers if number not in existing]
        found = [number for number in numbers if number in existing]
        # files have no latents, but a sample's are drawn from its number alone: again, the same
        wanted = numbers if self.with_latents else missing
        drawn = self.draw.sample(wanted) if wanted else None
        pieces = [self.files.read(found).to(get_device())] if found else []
        if missing:
            rows = [numbers.index(number) for number in missing] if self.with_latents else slice(None)
            decoded = self.draw.decode(drawn[rows], missing)
            if self.files is not None:
                self.files.write(missing, decoded.cpu())
            pieces.append(decoded)
        images = torch.cat(pieces)[torch.tensor([*found, *missing]).argsort()] if found else pieces[0]
        return images, drawn if self.with_latents else None


class _SampleSet:
    """The size and identity of generated samples, in place of a data set."""

    def __init__(self, count: int, size: int, identity: Mapping[str, Any]) -> None:
        self._count, self.size, self._identity = count, size, identity

    def __len__(self) -> int:
        return self._count

    def identity(self) -> dict[str, Any]:
        return dict(self._identity)
