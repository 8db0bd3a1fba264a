"""Base class of evaluators, and the views of a batch that they look at."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from eqzoo.distributed import all_gather_object, all_reduce
from eqzoo.evaluators.gaussian import FeatureMoments
from eqzoo.images import to_uint8
from eqzoo.precision import to_double
from eqzoo.randomness import SampleNoise

ROUNDING_SHARE = 1e-12  # rounding leaves about 1e-16 of the squares: less than this share of them does not vary


class AutoencoderView:
    """One batch of images with its latents and reconstructions, each computed once for all evaluators.

    Args:
        autoencoder: In evaluation mode.
        images: (B, 3, H, W), float in [-1, 1], on the autoencoder's device.
        numbers: The images' positions in their data set (B,); 0, 1, … by default.
        labels: Their classes (B,), if known.

    Raises:
        ValueError: By the properties, if latents or a reconstruction are not finite.
    """

    def __init__(
        self, autoencoder: Any, images: Tensor, numbers: Tensor | None = None, labels: Tensor | None = None
    ) -> None:
        self.autoencoder = autoencoder
        self.images = images
        self.numbers = torch.arange(len(images)) if numbers is None else numbers
        self.labels = labels

    @cached_property
    def latents(self) -> Tensor:
        """The posterior mean (B, C, h, w) in generator units."""
        with torch.no_grad():
            return finite_values('latents', self.autoencoder.latents(self.images), self.numbers)

    @cached_property
    def reconstruction(self) -> Tensor:
        """The images decoded from the posterior mean, (B, 3, H, W), unclamped."""
        with torch.no_grad():
            return finite_values('reconstruction', self.autoencoder.decode(self.raw_latents), self.numbers)

    @cached_property
    def sampled_reconstruction(self) -> Tensor:
        """The images decoded from a sample of the posterior, whose noise depends on the image's number only."""
        with torch.no_grad():
            posterior = self.autoencoder.encode(self.images)
            if posterior.std is None:
                return self.reconstruction
            noise = SampleNoise(0, self.numbers)(posterior.mean)
            latents = posterior.mean + posterior.std * noise
            return finite_values('reconstruction', self.autoencoder.decode(latents), self.numbers)

    @cached_property
    def images_uint8(self) -> Tensor:
        """The images as uint8."""
        return to_uint8(self.images)

    @cached_property
    def reconstruction_uint8(self) -> Tensor:
        """The reconstruction as uint8."""
        return to_uint8(self.reconstruction)

    @cached_property
    def indices(self) -> Tensor | None:
        """The chosen codes (B, h, w), if there is a codebook."""
        with torch.no_grad():
            return self.autoencoder.bottleneck(self.raw_latents).indices

    @property
    def raw_latents(self) -> Tensor:
        """`latents` in the autoencoder's own units."""
        return self.autoencoder.normalization.denormalize(self.latents)


class SampleView(NamedTuple):
    """One batch of images without an autoencoder, such as a generator's samples.

    Args:
        images: (B, 3, H, W), uint8, on the device of the evaluation.
        numbers: The images' positions in their set (B,).
        labels: Their classes (B,), if known.
        latents: The generated latents (B, C, h, w) that were decoded to the images, in generator units; None for
            images of files, for a generator of codes, and where no evaluator needs them.
    """

    images: Tensor
    numbers: Tensor
    labels: Tensor | None = None
    latents: Tensor | None = None


def finite_values(name: str, values: Tensor, numbers: Tensor) -> Tensor:
    """Return `values` (B, ...) if all are finite."""
    finite = values.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        raise ValueError(
            f'evaluation: NaN or infinite values in the {name} of image {int(numbers[~finite.cpu()][0])}; metrics need '
            'finite values. The weights are damaged, training diverged, or the precision is too low (use fp32).'
        )
    return values


class Evaluator(ABC):
    """A metric whose state is float64 sums by name, added up over batches and processes.

    Subclasses add to `self.sums[name]` in `update` and turn the totals into metrics in
    `compute`. Names may appear as data arrive, in some processes only: a process that saw
    no image still takes part in `evaluate` and returns the same metrics as the others.

    Values that cannot be summed, such as features for neighbours, are kept row by row with `keep`. After `evaluate` has
    gathered them from all processes, `self.kept[name]` has one row per image, in the order of the data set.

    If `compute` sets `curves`, the report draws them.

    An evaluator of samples that reads `SampleView.latents` sets `needs_latents`.
    """

    needs_latents: ClassVar[bool] = False

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.kept: dict[str, Tensor] = {}
        self.curves: list[dict[str, Any]] = []
        self._moments: dict[str, FeatureMoments] = {}
        self._rows: dict[str, list[Tensor]] = {}
        self._numbers: dict[str, list[Tensor]] = {}

    @abstractmethod
    def update(self, view: AutoencoderView | SampleView) -> None:
        """Add one batch to the sums."""

    @abstractmethod
    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Turn the sums over all images into metrics by their full names."""

    def card(self) -> dict[str, Any]:
        """Return how the metrics are measured, in JSON types."""
        return {}

    def check(self, num_images: int) -> None:  # noqa: B027 - overridden where needed
        """Refuse a data set of `num_images` that is too small; called before the first image.

        Raises:
            ValueError: With the number needed.
        """

    def check_labels(self, labels: Sequence[int] | None) -> None:  # noqa: B027 - overridden where needed
        """Refuse a data set without the classes that the metric needs; called after `check`.

        Args:
            labels: The class of each image; None for a data set that does not know them.

        Raises:
            ValueError: With what is needed.
        """

    def check_images(self, size: int | None, crop: str | None) -> None:  # noqa: B027 - overridden where needed
        """Refuse images of another size or crop than those they are compared with; called after `check_labels`.

        Args:
            size: Side of the images, in pixels; None if the data set does not say.
            crop: How they were cropped; None if the data set does not say, or does not crop.

        Raises:
            ValueError: Naming both.
        """

    def flush(self) -> None:
        """Move sums stored elsewhere (on a device, say) to `self.sums`; called before they are added up."""
        moments, self._moments = self._moments, {}
        for name, each in moments.items():
            self.add_totals(name, each.sums._asdict())

    def process(self, view: AutoencoderView | SampleView) -> None:
        """Count the images of a batch and `update` with it."""
        self.add('count', torch.ones(len(view.images)))
        self.update(view)

    def add(self, name: str, values: Tensor) -> None:
        """Add `values`, summed over their first axis, to the sum `name`."""
        self.add_total(name, to_double(values.detach()).sum(dim=0))

    def add_total(self, name: str, total: Tensor) -> None:
        """Add `total`, already summed over the batch, to the sum `name`."""
        total = to_double(total.detach()).cpu()
        if name in self.sums:
            self.sums[name] += total
        else:
            self.sums[name] = total.clone()

    def add_totals(self, name: str, totals: Mapping[str, Tensor]) -> None:
        """Add each of `totals` to the sum `<name> <its own name>`."""
        for part, total in totals.items():
            self.add_total(f'{name} {part}', total)

    def add_features(self, name: str, features: Tensor) -> None:
        """Add `features` (B, D) to the sums of their moments, which stay on the features' device until `flush`.

        `eqzoo.evaluators.gaussian.moments_of(sums, name)` reads them in `compute`.
        """
        if name not in self._moments:
            self._moments[name] = FeatureMoments(features.shape[1])
        self._moments[name].add(features)

    def keep(self, name: str, rows: Tensor, numbers: Tensor) -> None:
        """Keep `rows` (B, ...) of the images with `numbers` (B,) in the data set."""
        self._rows.setdefault(name, []).append(rows.detach().cpu())
        self._numbers.setdefault(name, []).append(numbers.cpu())

    def gather(self) -> dict[str, Tensor]:
        """Return the rows that all processes have kept, by name, and forget them; every process has to call it."""
        rows, self._rows = self._rows, {}
        numbers, self._numbers = self._numbers, {}
        return _rows_of_processes(rows, numbers)

    def evaluate(self, size: int) -> dict[str, float]:
        """Add up the sums of all processes, reset the state, and return the metrics.

        Args:
            size: The number of images in the data set, for the error message.

        Raises:
            ValueError: In every process, if none saw an image.
        """
        self.flush()
        sums, self.sums = _sums_over_processes(self.sums), {}
        if not sums:
            raise ValueError(f'{type(self).__name__} saw none of the {size} images; is every one unreadable?')
        self.kept = self.gather()
        metrics = self.compute(sums)
        self.kept = {}
        return metrics


def _sums_over_processes(sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add up the sums of all processes; one that lacks a name, because it saw no image, adds zeros."""
    everyones = all_gather_object({name: tuple(total.shape) for name, total in sums.items()})
    shapes = {name: shape for each in everyones for name, shape in each.items()}
    totals = {name: sums.get(name, torch.zeros(shape, dtype=torch.float64)) for name, shape in shapes.items()}
    for total in totals.values():
        all_reduce(total)
    return totals


def _rows_of_processes(rows: Mapping[str, list[Tensor]], numbers: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    """Return all processes' rows in the order of their numbers, each number once."""
    own = {name: (torch.cat(numbers[name]), torch.cat(rows[name])) for name in rows}
    everyones = all_gather_object(own)
    gathered = {}
    for name in dict.fromkeys(name for each in everyones for name in each):
        places, values = (torch.cat(parts) for parts in zip(*(e[name] for e in everyones if name in e), strict=True))
        order = places.argsort(stable=True)
        places = places[order]
        # loaders that pad the last batch show an image twice: the first of equal numbers counts
        first = torch.cat([torch.ones(1, dtype=torch.bool), places[1:] != places[:-1]])
        gathered[name] = values[order[first]]
    return gathered
