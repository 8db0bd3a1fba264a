"""`tools/convert.py`: convert an autoencoder's file from one format to another, and upload it."""

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal

from eqzoo.registry.ranges import PositiveFloat
from eqzoo.text import printable

if TYPE_CHECKING:
    from eqzoo.checkpoints.autoencoder import AutoencoderFile

# Keys of a training's config that say how its latents were shaped.
_METHOD = ('objective', 'corruptions', 'penalties', 'encoder_rate')


def convert(
    source: str,
    destination: str,
    *,
    to: Literal['diffusers', 'ldm', 'comfyui', 'onnx', 'eqzoo'],
    config: str | None = None,
    scale: PositiveFloat | None = None,
    shift: float | None = None,
    dtype: Literal['fp32', 'fp16', 'bf16'] | None = None,
    latents: Literal['sd', 'sdxl', 'sd3', 'flux'] | None = None,
    metrics: str | None = None,
    base: str | None = None,
    data: str | None = None,
    license: str | None = None,
    push: str | None = None,
    overwrite: bool = False,
) -> None:
    """Convert an autoencoder's file, bit for bit, with its discriminator and averaged weights.

    Args:
        source: A checkpoint or weights file of any format, a diffusers folder, or taesd's two
            files as ENCODER,DECODER.
        destination: A file, or a folder for diffusers and onnx.
        to: The format to write; comfyui is one file of weights for ComfyUI and A1111.
        config: A config with this autoencoder, if the file does not state it; its scale is used if the file states
            none.
        scale: The factor on the latents, such as 0.18215 for SD-VAE; replaces the one in the file, whose shift stays.
        shift: Subtracted from the latents before scaling, such as 0.1159 for FLUX.1; replaces the one in the file.
        dtype: The precision of the weights; as in the source by default.
        latents: For comfyui, the diffusion model whose latents these are; by default that of the nearest scale.
        metrics: A metrics.json of tools/test.py, for the model card of diffusers.
        base: The model that was fine-tuned, for the model card. Default: as stated in a checkpoint of eqzoo.
        data: The training data, for the model card. Default: as stated in a checkpoint of eqzoo.
        license: The licence of the weights, as the Hub writes it (mit, apache-2.0, …), for the model card.
        push: Upload the result to this repository of the Hugging Face Hub, ORGANISATION/NAME.
        overwrite: Replace an existing DESTINATION: the file, or the files that an earlier conversion wrote to the
            folder.
    """
    from eqzoo.checkpoints.autoencoder import complete_config, read_autoencoder
    from eqzoo.checkpoints.diffusers import padding_notes
    from eqzoo.checkpoints.write import cast_weights, check_destination, export
    from eqzoo.engine.work_dir import own_file
    from eqzoo.loading import autoencoder_config
    from eqzoo.zoo import check_upload, upload, weights_files

    _check_options(to, dtype, latents=latents, metrics=metrics, base=base, data=data, license=license)
    check_destination(Path(destination), to, overwrite=overwrite, sources=weights_files(source))
    if push is not None:
        check_upload(push)
    with own_file(destination, 'DESTINATION'):
        file = read_autoencoder(source)
        origin = 'the config' if config else 'the file' if file.config else 'shapes, norms with 32 groups'
        complete_config(file, source, autoencoder_config(config) if config else None)
        notes = [] if scale is None and shift is None else set_scale_and_shift(file, scale, shift)
        if dtype is not None:
            cast_weights(file, dtype)
        card = None
        if to == 'diffusers':
            stated = dict(base=base, data=data, license=license)
            title = PurePath(push or destination).name
            opening = _opening(file, push or destination, to)
            card = _card(title, source, metrics, stated, opening, padding_notes(file.config))
        notes += export(file, destination, to=to, overwrite=overwrite, latents=latents, card=card)
        described = _describe(file, to, f'from {origin}', notes)
        if push is not None:
            described.append(f'uploaded       {upload(destination, push)}')
    print(printable('\n'.join([*described, '', *_opening(file, destination, to)]), lines=True))


def set_scale_and_shift(file: 'AutoencoderFile', scale: float | None, shift: float | None) -> list[str]:
    """Set one factor and one shift on the latents; keep the one that is None. Return notes."""
    from eqzoo.checkpoints.autoencoder import set_normalization
    from eqzoo.checkpoints.config import published_normalizations

    stated, given = file.normalization, {k: v for k, v in dict(scale=scale, shift=shift).items() if v is not None}
    for name in given:
        if name in stated and len(stated[name].unique()) > 1:
            raise ValueError(
                f'--{name}: the file has a mean and a scale for each channel, which one number would replace; leave '
                f'--{name} out, or write new ones into the file with tools/latent_stats.py.'
            )
    if scale is None and not stated:
        raise ValueError(f'--shift {shift}: the file states no scale; expected both; give --scale FLOAT as well.')
    kept = {key: value.tolist() for key, value in stated.items()}
    set_normalization(file, {**kept, **given})
    if 'shift' in kept or shift is not None:
        return []
    shifted = {path: each['shift'] for path, each in published_normalizations(file.config).items() if 'shift' in each}
    shifts = ', '.join(f'{value} ({path})' for path, value in shifted.items())
    return [f'the shift is 0; published autoencoders of this network have one: {shifts}; see --shift'] if shifts else []


def _opening(file: 'AutoencoderFile', place: str, to: str) -> list[str]:
    """Return the lines of Python that open an exported autoencoder at `place`, a path or a repository of the Hub."""
    if to == 'diffusers':
        from eqzoo.checkpoints.diffusers import opening_lines

        return opening_lines(file.config, place)
    if to == 'onnx':
        return ['import onnxruntime', f'decoder = onnxruntime.InferenceSession({f"{place}/decoder.onnx"!r})']
    return ['import eqzoo', f'autoencoder = eqzoo.load({place!r})']


def _check_options(to: str, dtype: str | None, *, latents: str | None, **of_the_card: str | None) -> None:
    """Refuse options that another format has no use for."""
    given = [f'--{name}' for name, value in of_the_card.items() if value is not None]
    if given and to != 'diffusers':
        raise ValueError(f'convert --to {to}: {", ".join(given)}: for the model card of --to diffusers; leave it out.')
    if latents is not None and to != 'comfyui':
        raise ValueError(f'convert --to {to}: --latents {latents}: for --to comfyui; leave it out.')
    if dtype not in (None, 'fp32') and to == 'onnx':
        raise ValueError(f'convert --to onnx: --dtype {dtype}: expected fp32, in which the graphs are written.')


def _describe(file: 'AutoencoderFile', to: str, origin: str, notes: list[str]) -> list[str]:
    is_whole = to not in ('comfyui', 'onnx')  # which have the weights to use, and nothing to train on with
    trained = 'average, and the trained ones beside it' if is_whole else 'average'
    normalization = {key: [round(each, 6) for each in value.tolist()] for key, value in file.normalization.items()}
    normalization = {key: value[0] if len(set(value)) == 1 else value for key, value in normalization.items()}
    lines = {
        'autoencoder': f'{file.config["type"]}, {origin}',
        'parameters': f'{sum(value.numel() for value in file.network.values()):,}, {len(file.network)} tensors',
        'normalisation': ', '.join(f'{k} {v}' for k, v in normalization.items()) or 'not stated: raw latents',
        'weights': trained if file.trained else 'as in the source, no average',
        'discriminator': ('included' if is_whole else 'left out') if file.discriminator else 'none in the source',
    }
    if file.left_out:
        lines['left out'] = file.left_out_in_words
    lines |= {f'note {number}': note for number, note in enumerate(notes, start=1)}
    return [f'{name:<13}  {value}' for name, value in lines.items()]


def _card(
    title: str, source: str, metrics: str | None, stated: Mapping[str, str | None], loader: list[str], notes: list[str]
) -> str:
    """Return the model card: what the run of a checkpoint says, and what the user does."""
    from eqzoo.checkpoints.card import model_card, public_protocol
    from eqzoo.report.results import read_result

    facts: dict[str, Any] = {**_facts_of_run(source), **{k: value for k, value in stated.items() if value is not None}}
    if stated['base'] is not None:
        facts |= dict(zip(('base', 'base_model'), _base(stated['base']), strict=True))
    if metrics is not None:
        result = read_result(metrics)
        facts |= dict(metrics=result.metrics, protocol=public_protocol(result.card))
    return model_card(title, loader=loader, notes=notes, **facts)


def _facts_of_run(source: str) -> dict[str, Any]:
    """Return base, method and data of the training that wrote a checkpoint; nothing of other files."""
    from eqzoo.checkpoints.read import checkpoint_in, read_file
    from eqzoo.config import to_python
    from eqzoo.zoo import located, weights_files

    files = weights_files(source)
    path = checkpoint_in(located(files[0]))
    if len(files) != 1 or path.is_dir():
        return {}
    meta = read_file(path)[0].get('meta')
    text = meta.get('cfg') if isinstance(meta, Mapping) else None
    if not isinstance(text, str):
        return {}
    from eqzoo.engine.resume import read_config_text  # torch's and mmengine's engine: only for checkpoints

    try:
        config = read_config_text(text)
    except ValueError:  # another project's, with a `meta` of its own
        return {}
    model = config.get('model')
    if not isinstance(model, Mapping) or not isinstance(model.get('autoencoder'), Mapping):
        return {}
    weights = model['autoencoder'].get('weights')
    base, base_model = ('random weights', None) if weights is None else _base(weights)
    method = to_python({key: model[key] for key in _METHOD if model.get(key)})
    return dict(base=base, base_model=base_model, method=method, data=_data(config, meta))


def _base(weights: Any) -> tuple[str, str | None]:
    """Return weights in words, and their repository on the Hub."""
    from eqzoo.zoo import HUB, bare_url, find_model, is_remote

    if not isinstance(weights, str) or not is_remote(weights):
        name = weights if isinstance(weights, str) else ' and '.join(map(str, weights))
        return (PurePath(name).name if name.startswith(('/', '~')) else name), None
    name = weights.removeprefix('eqzoo://').partition('/')[0]
    if weights.startswith('eqzoo://'):
        model = find_model(name)
        url, licence = bare_url(model.files[0].url), f', {model.license}'
    else:
        name, url, licence = '', bare_url(weights), ''
    words = url.removeprefix('hf://').removeprefix(f'{HUB}/').split('/')
    repository = '/'.join(words[:2]).partition('@')[0] if url.startswith(('hf://', f'{HUB}/')) else None
    return (f'[{name}]({url}){licence}' if name else url), repository


def _data(config: Mapping[str, Any], meta: Mapping[str, Any]) -> str | None:
    """Return the training data of a run in words, without the places of files."""
    loader = config.get('train_dataloader')
    dataset = loader.get('dataset') if isinstance(loader, Mapping) else None
    if not isinstance(dataset, Mapping):
        return None
    root = dataset.get('root')
    name = str(dataset.get('type')).rpartition('.')[2]
    words = [f'{name} of {PurePath(root).name}' if isinstance(root, str) else name]
    if isinstance(dataset.get('size'), int):
        words.append(f'{dataset["size"]} x {dataset["size"]} pixels')
    words.append(f'{meta.get("iter")} steps of {loader.get("batch_size")} images')
    return ', '.join(words)
