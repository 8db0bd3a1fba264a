"""On what a run computes."""

import mmengine.device.utils
import torch
from mmengine.config import Config


def use_device(config: Config) -> None:
    """Let the run use what `config.device` names: 'auto' (the default, a GPU if there is one), 'cpu' or 'cuda'.

    Raises:
        ValueError: If it is none of these, or there is no GPU.
    """
    device = config.get('device', 'auto')
    if device not in ('auto', 'cpu', 'cuda'):
        raise ValueError(f"device: got {device!r}; accepted are 'auto', 'cpu' and 'cuda'.")
    if device == 'cuda' and not torch.cuda.is_available():
        built = f'built for CUDA {torch.version.cuda}' if torch.version.cuda else 'built without CUDA'
        raise ValueError(
            f"device: got 'cuda', but torch {torch.__version__}, {built}, sees no GPU here; look at nvidia-smi and "
            "CUDA_VISIBLE_DEVICES, install a torch with CUDA, or set device='cpu'."
        )
    if device == 'cpu':
        mmengine.device.utils.DEVICE = 'cpu'  # mmengine chooses once, when it is imported
