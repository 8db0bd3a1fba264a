"""`tools/check_gpu.py`: check in about two minutes whether a GPU computes correctly."""

import sys


def check_gpu(*, smoke: bool = False, only: str | None = None) -> None:
    """Compare the GPU with the CPU, and fast implementations with simple ones; print a line for each check.

    The exit status is 1 if a check fails. Weights are random: nothing is downloaded.

    Args:
        smoke: Run on the CPU, with tiny networks.
        only: Run only checks whose names contain this text.
    """
    import torch

    from eqzoo.benchmarks.gpu_checks import CHECKS, Setting, run_checks
    from eqzoo.distributed import use_device

    if not smoke:
        use_device('cuda')  # says what is missing if there is none
    names = [name for name in CHECKS if only is None or only in name]
    if not names:
        raise ValueError(f'--only: no check has {only!r} in its name; expected a part of one: {"; ".join(CHECKS)}.')
    device = torch.device('cpu' if smoke else 'cuda')
    print(f'{torch.cuda.get_device_name() if not smoke else "CPU, tiny networks"}, torch {torch.__version__}')
    failed = run_checks(Setting(device, is_small=smoke), names)
    print(f'{len(names) - len(failed)} of {len(names)} checks without a fault.')
    if failed:
        sys.exit(1)
