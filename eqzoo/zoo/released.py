"""The public weight files that the base configs point to."""

from dataclasses import dataclass
from pathlib import Path

_HUB = 'https://huggingface.co'
_LDM = 'https://ommer-lab.com/files/latent-diffusion'
_TORCHVISION = 'https://download.pytorch.org/models'


@dataclass(frozen=True)
class ReleasedFile:
    """A public file of weights.

    Args:
        path: Where configs expect it, relative to the working directory.
        url: Where it comes from. An archive (`.zip`) is unpacked into the folder of `path`.
        size: Bytes, where known.
        sha256: Hex digest, where known.
        license_page: For a gated file, where its licence is accepted; a token is then needed.
    """

    path: str
    url: str
    size: int | None = None
    sha256: str | None = None
    license_page: str | None = None


RELEASED = (
    # SD-VAE and SD-VAE-16 of the EQ-VAE paper; no hash of either is published.
    ReleasedFile('weights/kl-f8/model.ckpt', f'{_LDM}/kl-f8.zip'),
    ReleasedFile('weights/kl-f16/model.ckpt', f'{_LDM}/kl-f16.zip'),
    ReleasedFile(
        'weights/sd-vae-ft-mse/diffusion_pytorch_model.safetensors',
        f'{_HUB}/stabilityai/sd-vae-ft-mse/resolve/main/diffusion_pytorch_model.safetensors',
        size=334643276,
        sha256='a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815',
    ),
    ReleasedFile(
        'weights/sdxl-vae/sdxl_vae.safetensors',
        f'{_HUB}/stabilityai/sdxl-vae/resolve/main/sdxl_vae.safetensors',
        size=334641164,
        sha256='63aeecb90ff7bc1c115395962d3e803571385b61938377bc7089b36e81e92e2e',
    ),
    ReleasedFile(
        'weights/sd3-vae/diffusion_pytorch_model.safetensors',
        f'{_HUB}/stabilityai/stable-diffusion-3-medium-diffusers/resolve/main/vae/diffusion_pytorch_model.safetensors',
        size=167666654,
        sha256='f9b67a279283625caee39d61eacb5324243848477b4eb535355eaaa8423d4e09',  # as two mirrors have it
        license_page=f'{_HUB}/stabilityai/stable-diffusion-3-medium-diffusers',
    ),
    # The trunks of LPIPS.
    ReleasedFile(
        'weights/vgg16-397923af.pth',
        f'{_TORCHVISION}/vgg16-397923af.pth',
        size=553433881,
        sha256='397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0',
    ),
    ReleasedFile(
        'weights/alexnet-owt-7be5be79.pth',
        f'{_TORCHVISION}/alexnet-owt-7be5be79.pth',
        size=244408911,
        sha256='7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02',
    ),
)


def fetch_command(path: str | Path) -> str | None:
    """Return one shell command that puts a released file at `path`, or None if it is not a released one.

    The file takes its name only when it is whole and, where the hash is known, when it has it.

    Args:
        path: As in the config, relative to the working directory.

    Example:
        >>> fetch_command('weights/kl-f8/model.ckpt').split(' && ')[1]
        'unzip -o weights/kl-f8.zip -d weights/kl-f8'
    """
    released = next((each for each in RELEASED if Path(each.path) == Path(path)), None)
    if released is None:
        return None
    if released.url.endswith('.zip'):
        folder = Path(released.path).parent.as_posix()
        return f'curl -fL --create-dirs -o {folder}.zip {released.url} && unzip -o {folder}.zip -d {folder}'
    part = f'{released.path}.part'
    steps = [f'curl -fL --create-dirs{_login(released)} -o {part} {released.url}']
    if released.sha256 is not None:
        steps.append(f"echo '{released.sha256}  {part}' | sha256sum -c")
    return ' && '.join([*steps, f'mv {part} {released.path}'])


def _login(released: ReleasedFile) -> str:
    """Return curl's option for a gated file; without a token, the shell says what to do."""
    if released.license_page is None:
        return ''
    hint = f'accept the licence at {released.license_page} and set HF_TOKEN'
    return f' -H "Authorization: Bearer ${{HF_TOKEN:?{hint}}}"'
