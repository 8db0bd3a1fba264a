"""Square crops: an image of any size to `size` x `size` pixels."""

from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image
from torch.utils.data import get_worker_info

from eqzoo.lazy import LazyModule

functional = LazyModule('torchvision.transforms.functional')

# Beyond this ratio of the sides only the middle is resized: a strip of 1 x 10,000 pixels would fill the memory.
_LONGEST = 32

# of an image, the side, and the generator of those of RANDOM_CROPS
Crop = Callable[[Image.Image, int, np.random.Generator | None], np.ndarray]


def center(image: Image.Image, size: int, rng: np.random.Generator) -> np.ndarray:
    """Shrink the short side to `size` and cut out the middle: ADM's evaluation crop.

    Halve with a box filter while the short side is at least twice `size`, then go to `size`
    by bicubic interpolation (guided-diffusion's `center_crop_arr`, used by DiT, SiT and REPA).

    Returns:
        Pixels (size, size, 3), uint8. `rng` is not used.
    """
    if max(image.size) > _LONGEST * min(image.size):
        image = _middle(image, _LONGEST * min(image.size))
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    return np.asarray(_middle(image, size))


def random_square(image: Image.Image | np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Cut out a square at a random place and resize it by area: the recipe released with EQ-VAE.

    The side of the square is uniform over 0.5 to 1.0 of the short side.

    Returns:
        Pixels (size, size, 3), uint8.
    """
    if get_worker_info() is not None:
        cv2.setNumThreads(0)  # a worker uses one thread; cv2 would start one for each core
    width, height = width_and_height(image)
    side = max(1, int(min(width, height) * rng.uniform(0.5, 1.0)))
    left = int(rng.integers(width - side + 1))
    top = int(rng.integers(height - side + 1))
    if isinstance(image, Image.Image):
        pixels = np.asarray(image.crop((left, top, left + side, top + side)))
    else:
        pixels = image[top : top + side, left : left + side]
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)


def resize_tensor(image: Image.Image | np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Bring the short side to `size` after `ToTensor`, bilinear with antialias, and cut out the middle.

    torchvision's `ToTensor, Resize, CenterCrop` since 0.17: EQ-VAE's and LightningDiT's evaluation.

    Returns:
        Pixels (size, size, 3), uint8, rounded. `rng` is not used.
    """
    return _resize_tensor(image, size, antialias=True)


def resize_tensor_aliased(image: Image.Image | np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """`resize_tensor` without antialias: torchvision's default before 0.17, about 1 dB lower in PSNR."""
    return _resize_tensor(image, size, antialias=False)


def resize_pil(image: Image.Image, size: int, rng: np.random.Generator) -> np.ndarray:
    """Bring the short side to `size` by Pillow's bilinear filter and cut out the middle: `Resize` before `ToTensor`.

    Returns:
        Pixels (size, size, 3), uint8. `rng` is not used.
    """
    resized = functional.resize(image, size, functional.InterpolationMode.BILINEAR)
    return np.asarray(functional.center_crop(resized, [size, size]))


def exact(image: Image.Image | np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return the image unchanged, for samples that must not be resampled.

    Returns:
        Pixels (size, size, 3), uint8. `rng` is not used.

    Raises:
        ValueError: If the image is not `size` x `size`.
    """
    width, height = width_and_height(image)
    if (width, height) != (size, size):
        raise ValueError(f"{width} x {height} pixels; crop='exact' accepts {size} x {size} only")
    return np.asarray(image)


CROPS: dict[str, Crop] = {
    'center': center,
    'random_square': random_square,
    'resize_tensor': resize_tensor,
    'resize_tensor_aliased': resize_tensor_aliased,
    'resize_pil': resize_pil,
    'exact': exact,
}

RANDOM_CROPS = ('random_square',)
"""Those of `CROPS` that draw anew for each reading of an image."""

PIXEL_CROPS = ('random_square', 'resize_tensor', 'resize_tensor_aliased', 'exact')
"""Those of `CROPS` that take pixels (H, W, 3), uint8, as well as Pillow's images: they use no filter of Pillow."""


def width_and_height(image: Image.Image | np.ndarray) -> tuple[int, int]:
    """Return the width and height of an image or of pixels (H, W, 3)."""
    return image.size if isinstance(image, Image.Image) else (image.shape[1], image.shape[0])


def _resize_tensor(image: Image.Image | np.ndarray, size: int, *, antialias: bool) -> np.ndarray:
    bilinear = functional.InterpolationMode.BILINEAR
    resized = functional.resize(functional.to_tensor(image), size, bilinear, antialias=antialias)
    pixels = functional.center_crop(resized, [size, size]).mul(255).round().clamp(0, 255).byte()
    return pixels.permute(1, 2, 0).numpy()


def _middle(image: Image.Image, side: int) -> Image.Image:
    """Cut both sides to at most `side`."""
    width, height = min(image.width, side), min(image.height, side)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
