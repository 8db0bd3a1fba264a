"""Model cards: the README.md of an exported autoencoder, for the Hub and for people."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

_TAGS = ('eqzoo', 'autoencoder', 'vae')

_EQ_VAE = '[EQ-VAE](https://arxiv.org/abs/2502.09509)'
_DECIMALS = 4


def model_card(
    title: str,
    *,
    loader: Sequence[str],
    base: str | None = None,
    base_model: str | None = None,
    method: str | None = None,
    data: str | None = None,
    metrics: Mapping[str, float | None] | None = None,
    protocol: Mapping[str, Any] | None = None,
    license: str | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Return the text of a model card, with the header that the Hub reads.

    Args:
        title: The name of the model.
        loader: Lines of Python that open it.
        base: The weights that it was trained from, in words or as a link.
        base_model: The repository of these on the Hub.
        method: How it was trained: source of a config, shown as it is.
        data: The training data.
        metrics: Values by name, of a metrics.json; None for a value that is not a number.
        protocol: How they were measured: the card of the same file.
        license: An identifier of the Hub, such as 'mit'.
        notes: Further sentences: what the loader must know.

    Example:
        >>> model_card('my-vae', loader=['import eqzoo'], license='mit').splitlines()[6]
        'license: mit'
    """
    header = dict(library_name='diffusers', tags=list(_TAGS))
    header |= {key: value for key, value in dict(license=license, base_model=base_model).items() if value}
    on_latents = (
        'Latents have the scale (and the shift) in `config.json`. A diffusion model that was trained on latents of '
        'another autoencoder does not fit: fine-tune it on these, or train it on them.'
    )
    facts = {'Base': base, 'Data': data, 'Licence': license or 'not stated; that of the base holds'}
    parts = [
        f'---\n{yaml.safe_dump(header, sort_keys=False)}---',
        f'# {title}',
        'An image autoencoder, exported by eqzoo.',
        _fenced('python', '\n'.join(loader)),
        *notes,
        on_latents,
        '\n'.join(f'- **{name}:** {fact or "not stated"}' for name, fact in facts.items()),
    ]
    if method:
        parts += [
            '## Method',
            f'The objective, penalties and corruptions of eqzoo that it was trained with (of {_EQ_VAE} and others).',
            _fenced('python', method.strip()),
        ]
    if metrics:
        rows = [f'| {name} | {_number(value)} |' for name, value in metrics.items()]
        parts += ['## Metrics', '\n'.join(['| metric | value |', '|---|---|', *rows])]
    if metrics and protocol:
        parts += [
            'How they were measured; compare with values of the same protocol only.',
            _fenced('json', json.dumps(protocol, indent=1, ensure_ascii=False)),
        ]
    return '\n\n'.join(parts) + '\n'


def public_protocol(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card of a metrics.json without paths of files and the tested weights."""
    kept = {key: value for key, value in card.items() if key not in ('config', 'weights')}
    return _without_places(kept)


def _without_places(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_places(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_places(item) for item in value]
    is_place = isinstance(value, str) and value.startswith(('/', '~')) and '\n' not in value
    return value.rstrip('/').rpartition('/')[2] if is_place else value


def _fenced(language: str, text: str) -> str:
    return f'```{language}\n{text}\n```'


def _number(value: float | None) -> str:
    return 'not a number' if value is None else f'{value:.{_DECIMALS}g}'
