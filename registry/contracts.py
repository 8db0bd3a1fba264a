"""Interfaces of components that other components call: transforms, regularisers, requirements."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    # for annotations alone: a config can then be checked without torch
    from torch import Generator, Tensor

# Rows and columns of latent cells, (h, w).
Grid = tuple[int, int]


@runtime_checkable
class EquivarianceTransform(Protocol):
    """A transform of the plane that acts on both images and latents.

    Register it with `@TRANSFORMS.register_module()`; inherit from
    `eqzoo.transforms.Transform` to get `cases` and `__repr__` for free.
    """

    def sample(self, generator: 'Generator', grid: Grid) -> Any:
        """Draw parameters that are exact on a latent `grid` (h, w) and on any whole multiple of it."""

    def __call__(self, x: 'Tensor', params: Any) -> 'Tensor':
        """Transform images or latents `x` (B, C, H, W) by `params`."""

    def cases(self, grid: Grid) -> dict[str, Any]:
        """Return the fixed parameters of an evaluation, by name."""


@runtime_checkable
class Objective(Protocol):
    """The pairs of images that an autoencoder's training step compares: targets and reconstructions.

    Objectives, corruptions and penalties may also have `prepare(autoencoder)`, called once before training, which
    checks the fit and makes weights of their own; and `check_grid(grid)`, called with the latent grid of the training
    images. Both raise ValueError.
    """

    def sample(self, generator: 'Generator', grid: Grid) -> Any:
        """Draw this step's branch and parameters; one draw serves the whole batch on every rank."""

    def __call__(self, step: Any, images: 'Tensor', draw: Any) -> Any:
        """Take a `eqzoo.regularizers.LatentStep` to its list of `ReconstructionPair`, the main one first."""


@runtime_checkable
class Corruption(Protocol):
    """What happens to latents between codebook and decoder in training."""

    def __call__(self, latents: 'Tensor', streams: Any) -> 'Tensor':
        """Return corrupted latents (B, C, h, w), drawn from `streams`, one per sample."""


@runtime_checkable
class Penalty(Protocol):
    """A term of the loss on a step's latents. With `sample(generator, grid)` it gets a draw for the whole batch."""

    def __call__(self, step: Any, draw: Any) -> 'dict[str, Tensor]':
        """Return weighted scalars by name, from a `eqzoo.regularizers.LatentStep`."""


@dataclass(frozen=True)
class Requirement:
    """A missing file or folder that a component needs.

    A component class may have `requirements(cls, arguments) -> Sequence[Requirement]`,
    called by the preflight check before anything is built; and
    `smoke(cls, arguments) -> dict`, which shrinks its config for `--smoke`.

    Args:
        what: Its name.
        where: The places searched.
        remedy: Commands that get it, one a line.
    """

    what: str
    where: str
    remedy: str
