"""What a component of each kind must offer, written once."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Generator, Tensor

Grid = tuple[int, int]


@runtime_checkable
class EquivarianceTransform(Protocol):
    """A transform of the plane that acts on images and on latents alike.

    Register it with `@TRANSFORMS.register_module()`; inherit from
    `eqzoo.transforms.Transform` to get `cases` and `__repr__` for free.
    """

    def sample(self, generator: Generator, grid: Grid) -> Any:
        """Draw parameters that are exact on a latent `grid` (h, w) and on any whole multiple of it."""

    def __call__(self, x: Tensor, params: Any) -> Tensor:
        """Transform images or latents `x` (B, C, H, W) by `params`."""

    def cases(self, grid: Grid) -> dict[str, Any]:
        """Return the fixed parameters that an evaluation goes through, by name."""


@runtime_checkable
class Objective(Protocol):
    """What an autoencoder's training step reconstructs, and against what."""

    def sample(self, generator: Generator, grid: Grid) -> Any:
        """Draw what this step does; one draw serves the whole batch on every rank."""

    def __call__(self, autoencoder: Any, images: Tensor, draw: Any, noise: Any) -> Any:
        """Return the `eqzoo.regularizers.ReconstructionPair` of this step."""


@dataclass(frozen=True)
class Requirement:
    """Something outside the project that a component needs, and does not have.

    A component class may have `requirements(cls, arguments) -> Sequence[Requirement]`,
    called by the preflight check before anything is built; and
    `smoke(cls, arguments) -> dict`, which shrinks its config for `--smoke`.

    Args:
        what: What is missing.
        where: Where it was looked for.
        remedy: What to do: commands, one a line.
    """

    what: str
    where: str
    remedy: str
