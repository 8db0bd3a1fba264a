"""Files and folders to a repository of the Hub."""

import os
import re
from pathlib import Path

from eqzoo.zoo.index import HUB

_REPOSITORY = re.compile(r'[\w-][\w.-]*/[\w.-]+')


def check_upload(repository: str) -> None:
    """Check that `repository` is a name and that there is a token to write with, before long work.

    Raises:
        ValueError: If not, or if `HF_HUB_OFFLINE` is set.
    """
    from huggingface_hub import constants, get_token

    if not _REPOSITORY.fullmatch(repository):
        raise ValueError(f'--push: got {repository!r}; expected ORGANISATION/NAME, or USER/NAME.')
    if constants.HF_HUB_OFFLINE:
        raise ValueError('--push: HF_HUB_OFFLINE is set; unset it to upload.')
    if get_token() is None:
        raise ValueError(
            '--push: no token of the Hugging Face Hub was found; expected HF_TOKEN, or that of hf auth login; make one '
            f'that may write at {HUB}/settings/tokens.'
        )


def upload(path: str | Path, repository: str) -> str:
    """Upload a file, or the files of a folder, to a model repository of the Hub in one commit; return its address.

    The repository is created, private, if it does not exist; files of other names in it stay. `HF_ENDPOINT`
    replaces the address of the Hub.

    Raises:
        ValueError: As `check_upload`.
        PermissionError: If the Hub refuses the token, or the token may not write there.
        OSError: If the Hub fails.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    check_upload(repository)
    path = Path(path)
    hub = HfApi(endpoint=os.environ.get('HF_ENDPOINT', '').rstrip('/') or HUB)  # the library reads it at its import
    message = 'Upload an autoencoder of eqzoo'
    try:
        created = hub.create_repo(repository, private=True, exist_ok=True)
        if path.is_dir():
            hub.upload_folder(repo_id=repository, folder_path=path, commit_message=message)
        else:
            hub.upload_file(repo_id=repository, path_or_fileobj=path, path_in_repo=path.name, commit_message=message)
    except HTTPError as error:
        raise _failure(repository, path, error) from error
    except RuntimeError as error:  # the library's, about one of several large files
        raise _failure(repository, path, error.__cause__ or error) from error
    return str(created)


def _failure(repository: str, path: Path, error: BaseException) -> OSError:
    status = getattr(getattr(error, 'response', None), 'status_code', None)
    kept = f'{path} is written; upload it later: hf upload {repository} {path}'
    if status in (401, 403):
        return PermissionError(
            f'--push: the Hub refuses to write to {repository} (status {status}); expected a token that may write '
            f'there, in HF_TOKEN or of hf auth login. {kept}'
        )
    # of the library's message the first line: the rest may quote the request
    reason = f'status {status}' if status else (str(error).strip().splitlines() or [type(error).__name__])[0]
    return OSError(f'--push: the upload to {repository} failed ({reason}). {kept}')
