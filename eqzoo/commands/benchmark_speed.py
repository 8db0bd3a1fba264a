"""`tools/benchmark.py speed`: every hot path in one table."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from mmengine.device import get_device

from eqzoo.benchmarks.speed import Measured, matmul_peak, measure
from eqzoo.benchmarks.works import works

_DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16}


def speed(
    *,
    size: int | None = None,
    batch_size: int | None = None,
    generator: Literal['S', 'B', 'L', 'XL'] | None = None,
    precision: Literal['fp32', 'bf16'] | None = None,
    compile: bool = False,
    rounds: int = 3,
    out: str | None = None,
) -> None:
    """Measure encoding, decoding, an EQ step, caching, a generator's step, sampling and a Fréchet distance.

    Networks are SD-VAE, DiT with patch 2 and MaskGIT, with random weights, on the built-in
    Shapes. Operations are held against the fastest square matrix product of the same precision,
    measured in the same run.

    Args:
        size: Pixels of a side; 256 on a GPU, 64 without.
        batch_size: Images at once; 32 on a GPU, 2 without.
        generator: Size of the DiT; XL on a GPU, S without.
        precision: Of training and of generators; bf16 on a GPU, fp32 without.
        compile: Compile the blocks that train.
        rounds: Timed rounds of each; the fastest counts.
        out: A JSON file to write.
    """
    device = torch.device(get_device())
    on_gpu = device.type == 'cuda'
    chosen = dict(
        size=size or (256 if on_gpu else 64),
        batch_size=batch_size or (32 if on_gpu else 2),
        generator=generator or ('XL' if on_gpu else 'S'),
        precision=precision or ('bf16' if on_gpu else 'fp32'),
        compiled=compile,
    )
    peaks = {name: matmul_peak(device, _DTYPES[name]) for name in {'fp32', chosen['precision']}}
    card = _card(device) | chosen | {f'peak_{name}': peak for name, peak in peaks.items()}
    for name, value in card.items():
        print(f'{name:<12}{value:.3g}' if isinstance(value, float) else f'{name:<12}{value}')
    print(f'\n{"work":<18}{"images/s":>10}{"peak GiB":>10}{"GFLOP/s":>10}{"of peak":>9}')
    rows = []
    for work in works(**chosen, device=device):
        row = measure(work, device, peaks[work.precision], rounds=rounds)
        print(_line(row), flush=True)
        rows.append(row.row())
    if out is not None:
        Path(out).write_text(json.dumps({'card': card, 'rows': rows}, indent=2) + '\n')
        print(f'Written: {out}')


def _line(row: Measured) -> str:
    cells = f'{row.images_per_second:>10.3g}{row.peak_memory:>10.2f}{row.flops / 1e9:>10.4g}{row.share:>9.1%}'
    return f'{row.name:<18}{cells}'


def _card(device: torch.device) -> dict[str, str | int]:
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else _processor()
    versions = dict(torch=torch.__version__, eqzoo=version('eqzoo'), python=platform.python_version())
    return dict(device=name, threads=torch.get_num_threads(), **versions)


def _processor() -> str:
    """Return the name of the processor, as Linux knows it."""
    file = Path('/proc/cpuinfo')
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()
