"""The Inception Score from sums: how sure a classifier is of each image, and how many classes there are."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from eqzoo.randomness import seeded

_SHUFFLE = 0x15  # keeps the order's random numbers apart from others of the same seed


class InceptionScore(NamedTuple):
    """exp of the mean KL divergence between an image's classes and all images' (Salimans et al. 2016, Eq. 1).

    Args:
        mean: Over the splits; what is reported as `is`.
        std: Over the splits, divided by their number.
    """

    mean: float
    std: float


class ClassSums(NamedTuple):
    """What is added up in each of S splits; each in float64.

    Args:
        count: Of images, (S,).
        negative_entropy: Of the images' p log p, (S,).
        probability: Of the images' p, (S, K).
    """

    count: Tensor
    negative_entropy: Tensor
    probability: Tensor


class InceptionScoreSums:
    """The Inception Score of classifier outputs that come in batches, in any order.

    An image's split follows from its number, so batches and processes change nothing. The
    splits are those of ADM's evaluator (which makes splits of 5,000, here ten of 50,000) and of
    torch-fidelity with `shuffle=False`: consecutive numbers. **The order of the classes counts**:
    samples sorted by class score 23.2 where mixed ones score 32.6 (evaluation.md, section 1.5);
    draw labels with `eqzoo.statistics.labels.class_labels`, or set `shuffle`.

    Args:
        num_images: N, over all processes.
        num_classes: K; 1,008 of the Inception of FID, without its bias.
        splits: S.
        shuffle: Whether images go to splits by a fixed permutation of their numbers.
        seed: Of the permutation.

    Raises:
        ValueError: If there are fewer images than splits.
    """

    def __init__(
        self, num_images: int, num_classes: int, *, splits: int = 10, shuffle: bool = False, seed: int = 0
    ) -> None:
        if splits < 1 or num_images < splits:
            raise ValueError(
                f'Inception Score: {num_images} image(s) in {splits} splits; accepted are 1 split or more and '
                f'{max(splits, 1)} image(s) or more; evaluate more images, or use fewer splits.'
            )
        # torch-fidelity's split i ends before image (i + 1) N // S: this is the inverse, for any N
        self._split_of = ((torch.arange(num_images) + 1) * splits - 1) // num_images
        if shuffle:
            self._split_of = self._split_of[torch.randperm(num_images, generator=seeded(_SHUFFLE, seed))]
        zeros = torch.zeros(splits, dtype=torch.float64)
        self.sums = ClassSums(zeros, zeros.clone(), zeros[:, None].repeat(1, num_classes))

    def add(self, logits: Tensor, numbers: Tensor) -> None:
        """Add the classifier's outputs (B, K) for the images `numbers` (B,), 0 to N - 1.

        Raises:
            ValueError: If there is another number of classes, or of images; or an output is not finite.
        """
        classes = self.sums.probability.shape[1]
        if logits.ndim != 2 or logits.shape[1] != classes or numbers.shape != logits.shape[:1]:
            raise ValueError(
                f'Inception Score: logits {tuple(logits.shape)} for numbers {tuple(numbers.shape)}; '
                f'accepted are (B, {classes}) and (B,).'
            )
        numbers = numbers.cpu()
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(self._split_of):
            raise ValueError(
                f'Inception Score: images {numbers.min()} to {numbers.max()}; accepted are 0 to '
                f'{len(self._split_of) - 1}; give the number of all images as num_images.'
            )
        logits = logits.detach().cpu().double()
        if not logits.isfinite().all():
            raise ValueError('Inception Score: a logit is NaN or infinite; look for NaN in the images.')
        split = self._split_of[numbers]
        probability = logits.softmax(dim=1)
        self.sums.count.index_add_(0, split, torch.ones(len(split), dtype=torch.float64))
        self.sums.negative_entropy.index_add_(0, split, -torch.special.entr(probability).sum(dim=1))
        self.sums.probability.index_add_(0, split, probability)

    def score(self) -> InceptionScore:
        """Return the score of what was added in this process."""
        return inception_score(self.sums)


def inception_score(sums: ClassSums | Mapping[str, Tensor]) -> InceptionScore:
    """Return the score that `sums` stand for; as a mapping they have the fields of `ClassSums` for keys.

    Raises:
        ValueError: If a split has no image.
    """
    if not isinstance(sums, ClassSums):
        sums = ClassSums(sums['count'], sums['negative_entropy'], sums['probability'])
    if not sums.count.min() > 0:
        raise ValueError(
            f'Inception Score: images in the splits: {sums.count.long().tolist()}; each needs at least 1; '
            'evaluate more images, or use fewer splits.'
        )
    # the mean of Σ p (log p - log q) over a split; q is the mean of its p
    marginal = sums.probability / sums.count[:, None]
    divergence = sums.negative_entropy / sums.count + torch.special.entr(marginal).sum(dim=1)
    scores = divergence.exp()
    return InceptionScore(scores.mean().item(), scores.std(correction=0).item())
