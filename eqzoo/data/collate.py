"""From dataset items to a batch, leaving out what could not be read."""

from collections.abc import Sequence
from typing import Any

import torch


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stack items into one batch.

    Args:
        items: `dict(image, label, index, draw)` each, or `dict(unreadable, index, draw)`.

    Returns:
        `dict(images=uint8 (B, 3, H, W), labels, indices, draws=int64 (B,), unreadable=list[str])`,
        where B counts the readable items only.

    Raises:
        ValueError: If no item is readable.
    """
    readable = [item for item in items if 'unreadable' not in item]
    unreadable = [item['unreadable'] for item in items if 'unreadable' in item]
    if not readable:
        raise ValueError(f'No image of this batch of {len(items)} can be read: {", ".join(unreadable)}.')
    return dict(
        images=torch.stack([item['image'] for item in readable]),
        labels=torch.tensor([item['label'] for item in readable]),
        indices=torch.tensor([item['index'] for item in readable]),
        draws=torch.tensor([item['draw'] for item in readable]),
        unreadable=unreadable,
    )
