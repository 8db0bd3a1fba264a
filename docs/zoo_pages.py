"""Pages about released models: tables of the metafiles, and cards with what configs and networks add to them."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

ROOT = Path(__file__).resolve().parents[1]

GROUPS = ('autoencoders', 'generators', 'losses and metrics')

_SIDE = 256  # pixels of the images whose latents the pages state


def models_table(group: str) -> str:
    """Return a table of the released models of one of `GROUPS`, by the metafiles alone."""
    linked = group != 'losses and metrics'
    lines = [
        '| name | parameters | licence | config | results, by the source | MB | sha256 |',
        '|---|--:|---|---|---|--:|---|',
    ]
    for model in released(group).values():
        name = f'`{model["Name"]}`'
        cells = [
            f'[{name}](model_cards.md#{model["Name"]})' if linked else name,
            f'{model["Metadata"]["Parameters"]:,}',
            _licence(model),
            f'`{model["Config"]}`',
            _results(model) or '–',
            _megabytes(model) or '?',
            'known' if all('SHA256' in file for file in _files(model)) else '–',
        ]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def model_cards(group: str) -> str:
    """Return a section for each autoencoder or generator: where it is from, what it is, how it is loaded and used."""
    parts = []
    for name, model in released(group).items():
        facts = _autoencoder_facts(model) if group == 'autoencoders' else _generator_facts(model)
        rows = {
            'source': _source(model),
            'licence': _licence(model),
            **facts,
            'trained on': _training(model),
            'results, by the source': _results(model),
            'weights': _weights(model),
        }
        table = [f'| {title} | {fact} |' for title, fact in rows.items() if fact]
        commands = _export_commands(model) if group == 'autoencoders' else _sampling_commands(model)
        kind = group.removesuffix('s')
        code = ['```python', 'import eqzoo', '', f'{kind} = eqzoo.load({name!r})', '```']
        console = ['```console', *(f'$ {command}' for command in commands), '```']
        parts.append('\n'.join([f'### {name}', '', '| | |', '|---|---|', *table, '', *code, '', *console]))
    return '\n\n'.join(parts)


@cache
def released(group: str) -> dict[str, dict[str, Any]]:
    """Return the metafiles' entries of a group by name, each with its `Collection`."""
    found = {}
    for path in sorted((ROOT / 'configs').rglob('metafile.yml')):
        metafile = yaml.safe_load(path.read_text())
        collections = {each['Name']: each for each in metafile['Collections']}
        for model in metafile['Models']:
            if _group(model, path) == group:
                found[model['Name']] = {**model, 'Collection': collections[model['In Collection']]}
    return found


def _group(model: Mapping[str, Any], metafile: Path) -> str:
    if metafile.parent.name in ('losses', 'evaluation'):
        return 'losses and metrics'
    return 'generators' if '_published' in model['Config'] else 'autoencoders'


def _files(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return model.get('Files') or [{**model, 'URL': model['Weights']}]


def _megabytes(model: Mapping[str, Any]) -> str:
    sizes = [file.get('Bytes') for file in _files(model)]
    return '' if None in sizes else f'{sum(sizes) / 1e6:,.1f}'


def _licence(model: Mapping[str, Any]) -> str:
    return model['License'] + (f' ([gated]({model["Gated"]}))' if 'Gated' in model else '')


def _results(model: Mapping[str, Any]) -> str:
    return ', '.join(f'{name} {value}' for each in model.get('Results', ()) for name, value in each['Metrics'].items())


def _training(model: Mapping[str, Any]) -> str:
    metadata = model['Metadata']
    epochs = [f'{metadata["Epochs"]} epochs'] if 'Epochs' in metadata else []
    return ', '.join([metadata['Training Data'], *epochs] if 'Training Data' in metadata else epochs)


def _source(model: Mapping[str, Any]) -> str:
    paper, code = (model['Collection'].get(key) for key in ('Paper', 'Code'))
    links = [f'[{paper["Title"]}]({paper["URL"]})'] if paper else []
    links += [f'[code]({code["URL"]})'] if code else []
    return f'{model["In Collection"]}: {", ".join(links)}'


def _weights(model: Mapping[str, Any]) -> str:
    files = _files(model)
    links = ', '.join(f'[{urlsplit(file["URL"]).hostname}]({file["URL"]})' for file in files)
    size = f', {_megabytes(model)} MB' if _megabytes(model) else ''
    return f'{links}{size}{", sha256 known" if all("SHA256" in file for file in files) else ""}'


def _autoencoder_facts(model: Mapping[str, Any]) -> dict[str, str]:
    """Return what the network and the configs say about an autoencoder."""
    import torch

    from eqzoo.loading import autoencoder_config
    from eqzoo.registry import build

    config = autoencoder_config(ROOT / model['Config'])
    with torch.device('meta'):  # shapes only: nothing is initialised, no weights are read
        autoencoder = build({**config, 'weights': None})
    total = _count(autoencoder)
    encoder = sum(_count(getattr(autoencoder, part)) for part in autoencoder.encoder_parts)
    cells = _SIDE // autoencoder.downsample_factor
    drawn = (
        f'one of {autoencoder.num_codes:,} codes in each cell'
        if autoencoder.has_codebook
        else ('drawn from a Gaussian of each cell' if autoencoder.has_posterior else 'not drawn')
    )
    trained, generated = _uses(model['Name'])
    memory = model['Metadata'].get('Training Memory')
    return {
        'network': f'{config.get("class_name") or config["type"]}, {total:,} parameters: encoder {encoder:,}, '
        f'decoder {total - encoder:,}',
        'latents': f'f{autoencoder.downsample_factor}, {autoencoder.latent_channels} channels: '
        f'{autoencoder.latent_channels} x {cells} x {cells} of an image of {_SIDE} x {_SIDE}; {drawn}',
        'normalisation': _normalization(config),
        'memory of a training step': _gibibytes(memory) if memory else '',
        'fine-tuned by': _listed(trained),
        'generators on its latents': _listed(generated),
    }


def _generator_facts(model: Mapping[str, Any]) -> dict[str, str]:
    """Return what the network and the configs say about a generator."""
    import torch

    from eqzoo.config import load_config
    from eqzoo.registry import argument_defaults, build

    parts = load_config(ROOT / model['Config']).model
    with torch.device('meta'):
        network = build({**parts.generator.network, 'weights': None})
    given = {**argument_defaults(parts.generator.network['type']), **parts.generator.network}
    if 'num_codes' in given:
        samples = f'{given["grid"]} x {given["grid"]} codes of {given["num_codes"]:,}'
    else:
        samples = f'latents, {given["latent_channels"]} x {given["latent_size"]} x {given["latent_size"]}'
    decoder = _name_of(parts.autoencoder.get('weights'))
    return {
        'network': f'{parts.generator["type"]}, {given["type"]} {given["size"]}, {_count(network):,} parameters',
        'samples': f'{samples}, of {given["num_classes"]:,} classes',
        'decoded by': f'[`{decoder}`](#{decoder})' if decoder else f'`{parts.autoencoder.get("weights")}`',
        'sampled by': _listed(_uses(model['Name'])[1]),
    }


def _count(network: Any) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _gibibytes(memory: Mapping[str, Any]) -> str:
    return f'{memory["GiB"]:.2f} GiB, with all that saves memory {memory["Least GiB"]:.2f} GiB: `{memory["Config"]}`'


def _normalization(config: Mapping[str, Any]) -> str:
    if config.get('mean') is not None:
        return 'mean and standard deviation of each channel'
    if config.get('scale') is None and config.get('shift') is None:
        # FLUX.2's latents are normalised by a batch norm, whose statistics come with the weights
        return 'by the batch norm in its weights' if config.get('class_name') == 'AutoencoderKLFlux2' else 'none stated'
    shift = f'(z - {config["shift"]}) x ' if config.get('shift') else 'z x '
    return f'{shift}{config.get("scale", 1)}'


@cache
def _all_uses() -> dict[str, tuple[list[str], list[str]]]:
    """Return by name of a model the configs that train it, and those that use it without training it."""
    from eqzoo.config import leaf_configs, load_config

    found: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for path in leaf_configs(ROOT / 'configs'):
        model = load_config(path).get('model') if 'studies' not in path.parts else None
        if model is None:
            continue
        where = str(path.relative_to(ROOT))
        generator = model.get('generator')
        trains_both = model.get('type') == 'JointTraining' and not path.stem.endswith('_published')
        if name := _name_of(model.autoencoder.get('weights') if model.get('autoencoder') else None):
            found[name][generator is not None and not trains_both].append(where)
        if name := _name_of(generator.network.get('weights') if generator else None):
            found[name][1].append(where)
    return dict(found)


def _uses(name: str) -> tuple[list[str], list[str]]:
    return _all_uses().get(name, ([], []))


def _name_of(weights: Any) -> str | None:
    """Return the name in the zoo of an argument `weights`; None for other files and for none."""
    from eqzoo.zoo import is_remote, models, resolve

    first = weights[0] if isinstance(weights, list | tuple) else weights
    file = resolve(first) if is_remote(first) else None
    return next((model.name for model in models().values() if file in model.files), None)


def _listed(configs: list[str]) -> str:
    """Return config files in words, by folder."""
    folders = defaultdict(list)
    for config in configs:
        folder, _, file = config.rpartition('/')
        folders[folder].append(f'`{file}`')
    return '; '.join(f'`{folder}`: {", ".join(files)}' for folder, files in folders.items())


def _export_commands(model: Mapping[str, Any]) -> Iterator[str]:
    from eqzoo.zoo import find_model

    name = model['Name']
    files = find_model(name).files
    source = ','.join(f'eqzoo://{name}/{file.name}' for file in files) if len(files) > 1 else f'eqzoo://{name}'
    yield f'python tools/download.py {name}'
    for to in _formats(model):
        place = f'{name}.safetensors' if to != 'diffusers' else name
        yield f'python tools/convert.py {source} {place} --to {to} --config {model["Config"]}'


def _formats(model: Mapping[str, Any]) -> list[str]:
    """Return the formats of other programs that hold this network, or eqzoo's own."""
    import torch

    from eqzoo.checkpoints.comfyui import to_comfyui
    from eqzoo.checkpoints.config import plain_config
    from eqzoo.checkpoints.diffusers import to_config_json
    from eqzoo.loading import autoencoder_config

    config = autoencoder_config(ROOT / model['Config'])
    plain = plain_config(config)
    factors = {'scale': torch.tensor([config.get('scale', 1.0)]), 'shift': torch.tensor([config.get('shift', 0.0)])}
    formats = []
    # for a KL autoencoder without a stated scale diffusers would assume SD-VAE's: `convert` asks for one
    if config['type'] != 'KLAutoencoder' or config.get('scale') or config.get('mean'):
        with suppress(ValueError):
            to_config_json(plain, {}, {})
            formats.append('diffusers')
    with suppress(ValueError):
        to_comfyui(plain, {}, factors, None)
        formats.append('comfyui')
    return formats or ['eqzoo']


def _sampling_commands(model: Mapping[str, Any]) -> list[str]:
    return [
        f'python tools/download.py {model["Name"]}',
        f'python tools/sample.py {model["Config"]} --out samples --num 16',
        f'python tools/test.py {model["Config"]}',
    ]
