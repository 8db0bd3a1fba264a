"""Agreement of neighbouring latents on their class (LNC), a stand-in for a linear probe."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from eqzoo.evaluators.base import AutoencoderView, Evaluator
from eqzoo.evaluators.neighbours import nearest_neighbors
from eqzoo.precision import to_double
from eqzoo.registry import EVALUATORS
from eqzoo.registry.ranges import Filled, PositiveInt

_REMEDY = 'use images in folders of their classes, directly below the root, or leave the evaluator out'


@EVALUATORS.register_module()
class NeighborConsistency(Evaluator):
    """`lnc@5` and `lnc@10`: the share of an image's 5 or 10 nearest neighbours that have its class; and `…_std`.

    From "Diffusing in the Right Space" (arXiv 2606.03578), where it follows the accuracy of a linear probe
    (correlation .99) and predicts generators' FID (.79). **Higher is easier**; `chance` in the card is the value of
    latents that do not depend on the class. Each image is its latent averaged over cells, minus the mean over the
    set; neighbours are by cosine. `…_std` is the standard error with images as units.

    Differs from it: the average is over all cells, there over the foreground of masks, which data sets here do
    not have.

    Args:
        neighbors: The numbers of neighbours; each gives a metric.

    Raises:
        ValueError: If `neighbors` has no number, or one below 1; by `check`, if there are too few images; by
            `check_labels`, if there are no classes.
    """

    def __init__(self, neighbors: Filled[PositiveInt] = (5, 10)) -> None:
        super().__init__()
        self.neighbors = tuple(neighbors)
        self._classes: dict[str, Any] = {}  # of the card; known once evaluated

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the same for the smallest number of images."""
        return {**arguments, 'neighbors': (1,)}

    def check(self, num_images: int) -> None:
        """Refuse a set with too few neighbours.

        Raises:
            ValueError: With the number needed.
        """
        if num_images <= max(self.neighbors):
            raise ValueError(
                f'lnc@{max(self.neighbors)}: {num_images} images, but it needs {max(self.neighbors) + 1} or more; use '
                'more images, or fewer neighbors.'
            )

    def check_labels(self, labels: Sequence[int] | None) -> None:
        """Refuse a set without classes.

        Raises:
            ValueError: With what to do.
        """
        known = set(labels or ())
        if len(known) < 2:
            found = 'one class' if known else 'no classes'
            raise ValueError(f'NeighborConsistency: the data set has {found}, but it needs two or more; {_REMEDY}.')

    def update(self, view: AutoencoderView) -> None:
        """Keep a batch's averages and labels.

        Raises:
            ValueError: If the batch has no labels.
        """
        if view.labels is None:
            raise ValueError(f'NeighborConsistency: the images have no labels; {_REMEDY}.')
        self.keep('features', to_double(view.latents).mean(dim=(2, 3)), view.numbers)
        self.keep('labels', view.labels, view.numbers)

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the shares and their standard errors."""
        features, labels = self.kept['features'], self.kept['labels']
        counts = labels.unique(return_counts=True)[1].double()
        chance = (counts * (counts - 1)).sum() / (len(labels) * (len(labels) - 1))
        self._classes = {'classes': len(counts), 'chance': round(chance.item(), 4)}
        shares = same_class_shares(features, labels, self.neighbors)
        metrics = {}
        for count, own in shares.items():
            metrics[f'lnc@{count}'] = own.mean().item()
            metrics[f'lnc@{count}_std'] = own.std().item() / math.sqrt(len(own))
        return metrics

    def card(self) -> dict[str, Any]:
        """Return the features and the classes."""
        return {
            'latent': 'posterior mean in generator units, averaged over all cells, minus the mean of the set',
            'neighbors': 'nearest by cosine, within the set',
            **self._classes,
            'std': 'standard error, images being the units',
        }


def same_class_shares(features: Tensor, labels: Tensor, neighbors: Sequence[int]) -> dict[int, Tensor]:
    """Return for each number of neighbours the share (N,) of each image's neighbours with its label, float64.

    Args:
        features: (N, D); their mean is subtracted.
        labels: (N,).
        neighbors: Each below N.

    Example:
        >>> import torch
        >>> angles = torch.tensor([0.0, 0.1, 0.3, 3.1, 3.3, 3.4])
        >>> points = torch.stack([angles.cos(), angles.sin()], dim=1)
        >>> same_class_shares(points, torch.tensor([0, 0, 1, 1, 1, 1]), (1, 2))[2].tolist()
        [0.5, 0.5, 0.0, 1.0, 1.0, 1.0]
    """
    directions = F.normalize(features - features.mean(dim=0), dim=1)
    # of unit vectors the nearest are those of the largest cosine
    _, places = nearest_neighbors(directions, max(neighbors))
    same = (labels[places] == labels[:, None]).double()
    return {count: same[:, :count].mean(dim=1) for count in neighbors}
