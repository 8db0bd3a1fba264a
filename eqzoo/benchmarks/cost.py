"""What a piece of work costs."""

from dataclasses import dataclass


@dataclass
class Cost:
    """Images a second, and the peak memory in GiB."""

    images_per_second: float
    peak_memory: float
