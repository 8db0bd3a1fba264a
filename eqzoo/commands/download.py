"""`tools/download.py`: download released weights, and print where their hash comes from."""

from eqzoo.zoo import ReleasedModel, cached, fetch, find_model, is_remote, models, record_of


def download(name: str | None = None, *, list: bool = False) -> None:
    """Download a released model, or list them.

    Args:
        name: A name from the list, or a URL: https://…, hf://org/repository[@revision]/path, or hf://org/repository for
            a diffusers folder.
        list: List the models.
    """
    if list and name is not None:
        raise ValueError(f'download: got --list and {name!r}; expected one of them: --list shows all models.')
    if list:
        print('\n'.join(_table()))
        return
    if name is None:
        raise ValueError('download: nothing to download; give a NAME of --list, or a URL.')
    sources = [name] if is_remote(name) else [f'eqzoo://{name}/{file.name}' for file in find_model(name).files]
    for source in sources:
        path = fetch(source)
        if path.is_dir():
            print(f'{path}\n  {", ".join(sorted(file.name for file in path.iterdir()))}')
            continue
        record = record_of(source)
        if record is None:  # it was never downloaded, so no hash was recorded
            print(f'{path}\n  comes with eqzoo.')
            continue
        checked = (
            'as published'
            if record.published
            else (
                f'recorded on {record.date[:10]}, when it was first downloaded: none is published. '
                'Later downloads have to have it too'
            )
        )
        print(f'{path}\n  sha256 {record.sha256}, {checked}.')
    if not is_remote(name):
        from eqzoo.loading import released_config

        try:
            kind, _ = released_config(name)
        except ValueError:  # a network of a loss or a metric
            return
        print(f'\nimport eqzoo\n{kind} = eqzoo.load({name!r})')


def _table() -> list[str]:
    row = '{:<20}{:>12}{:>9}  {:<8}{:<7}{}'
    lines = [row.format('name', 'parameters', 'MB', 'sha256', 'here', 'licence; config')]
    for model in models().values():
        sizes = [file.size for file in model.files]
        megabytes = '?' if None in sizes else f'{sum(sizes) / 1e6:.1f}'
        is_known = all(file.sha256 for file in model.files)
        lines.append(
            row.format(
                model.name,
                f'{model.parameters:,}',
                megabytes,
                'known' if is_known else '-',
                'yes' if _is_here(model) else '-',
                f'{model.license}{", gated" if model.files[0].license_page else ""}; {model.config}',
            )
        )
    return lines


def _is_here(model: ReleasedModel) -> bool:
    return all(cached(f'eqzoo://{model.name}/{file.name}') for file in model.files)
