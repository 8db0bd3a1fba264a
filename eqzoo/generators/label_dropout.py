"""Labels left out now and then, so that one network learns with and without classes."""

from torch import Tensor


def check_probability(where: str, probability: float) -> None:
    """Refuse what is no probability.

    Raises:
        ValueError: Naming `where`.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f'{where} must be in [0, 1], got {probability}.')


def drop_labels(labels: Tensor, uniform: Tensor, probability: float, num_classes: int) -> Tensor:
    """Return `labels` (B,), with `num_classes`, no class, where `uniform` (B,) is below `probability`."""
    return labels.masked_fill(uniform.to(labels.device) < probability, num_classes)
