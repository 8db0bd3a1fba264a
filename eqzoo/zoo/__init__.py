"""Released weights: where they are, and how to have them."""

from eqzoo.zoo.released import RELEASED, ReleasedFile, fetch_command

__all__ = ['RELEASED', 'ReleasedFile', 'fetch_command']
