"""Load what a file holds into an autoencoder, completely or not at all."""

from collections.abc import Mapping

from torch import Tensor, nn

from eqzoo.autoencoders.files import listed
from eqzoo.autoencoders.stored import Source, Stored, read_stored, shown


def load_weights(model: nn.Module, source: Source) -> None:
    """Load a file of any known format into `model`, every tensor of it or none.

    A file that states no normalisation (any but eqzoo's and folders of diffusers) leaves the
    model's own.

    Args:
        model: An autoencoder with diffusers' names.
        source: A file, a folder or a pair of files; see `read_stored`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file cannot be read safely, does not fit the model, or was trained
            with another padding or other groups of its norms.
    """
    load_stored(model, read_stored(source), source)


def load_stored(model: nn.Module, stored: Stored, source: Source) -> None:
    """Load what was read from `source`, as `load_weights` does."""
    _check_settings(model, stored, source)
    found, wanted = dict(stored.state), model.state_dict()
    if not stored.normalization:
        found |= {key: value for key, value in wanted.items() if key.startswith('normalization.')}
    check_fit(found, wanted, f'{type(model).__name__}.weights: {shown(source)}')
    model.load_state_dict(found)


def check_fit(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str) -> None:
    """Compare names and shapes of two state dicts.

    Raises:
        ValueError: If they differ, with the names.
    """
    missing = [key for key in wanted if key not in found]
    unexpected = [key for key in found if key not in wanted]
    misshapen = [
        f'{key} {tuple(found[key].shape)}, not {tuple(wanted[key].shape)}'
        for key in wanted
        if key in found and found[key].shape != wanted[key].shape
    ]
    kinds = (('missing', missing), ('unexpected', unexpected), ('of another shape', misshapen))
    problems = [f'{len(keys)} {kind}: {listed(keys)}' for kind, keys in kinds if keys]
    if problems:
        raise ValueError(
            f'{where} does not fit the network: {"; ".join(problems)}. '
            'Choose the file that belongs to this config, or the config that belongs to this file.'
        )


def _check_settings(model: nn.Module, stored: Stored, source: Source) -> None:
    """Compare the settings that change outputs but no weight's name or shape."""
    norms = (module.num_groups for module in model.modules() if isinstance(module, nn.GroupNorm))
    settings = dict(padding_mode=getattr(model, 'padding_mode', None), norm_num_groups=next(norms, None))
    for name, ours in settings.items():
        theirs = (stored.config or {}).get(name)
        if None not in (ours, theirs) and ours != theirs:
            raise ValueError(
                f'{type(model).__name__}.{name}: got {ours!r}, but {shown(source)} was trained with {theirs!r}; '
                f'accepted is the same; set {name}={theirs!r} in the config. To fine-tune it with {ours!r}, first '
                'write a file that says so: python tools/convert.py FILE NEW --to eqzoo --config CONFIG.'
            )
