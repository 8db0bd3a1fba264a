"""Benchmarks of a machine: every hot path, and a GPU in minutes."""

import platform
from typing import Literal

from eqzoo import __version__
from eqzoo.benchmarks.measurements import Row, with_out
from eqzoo.files import replacing
from eqzoo.registry.ranges import PositiveFloat


@with_out
def speed(
    *,
    size: int | None = None,
    batch_size: int | None = None,
    generator: Literal['S', 'B', 'L', 'XL'] | None = None,
    precision: Literal['fp32', 'bf16'] | None = None,
    compile: bool = False,
    rounds: int = 3,
) -> list[Row]:
    """Measure encoding, decoding, an EQ step, caching, a generator's step, sampling and a Fréchet distance.

    Networks are SD-VAE, DiT with patch 2 and MaskGIT, with random weights, on the built-in
    Shapes. Operations per second are compared with the fastest square matrix product of the same
    precision, measured in the same run.

    Args:
        size: Pixels a side; by default 256 on a GPU, otherwise 64.
        batch_size: Images at once; by default 32 on a GPU, otherwise 2.
        generator: Size of the DiT; by default XL on a GPU, otherwise S.
        precision: Of training and of generators; by default bf16 on a GPU, otherwise fp32.
        compile: Compile the blocks of training networks.
        rounds: Timed rounds of each; the fastest counts.
    """
    import torch

    from eqzoo.benchmarks.speed import hot_paths, matmul_peak, measure
    from eqzoo.distributed import get_device
    from eqzoo.machine import processor_name

    device = torch.device(get_device())
    on_gpu = device.type == 'cuda'
    chosen = dict(
        size=size or (256 if on_gpu else 64),
        batch_size=batch_size or (32 if on_gpu else 2),
        generator=generator or ('XL' if on_gpu else 'S'),
        precision=precision or ('bf16' if on_gpu else 'fp32'),
        compiled=compile,
    )
    dtypes = {'fp32': torch.float32, 'bf16': torch.bfloat16}
    peaks = {name: matmul_peak(device, dtypes[name]) for name in {'fp32', chosen['precision']}}
    card = dict(
        device=torch.cuda.get_device_name(device) if on_gpu else processor_name(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        eqzoo=__version__,
        python=platform.python_version(),
        **chosen,
        **{f'peak_{name}': peak for name, peak in peaks.items()},
    )
    for name, value in card.items():
        print(f'{name:<12}{value:.3g}' if isinstance(value, float) else f'{name:<12}{value}')
    print(f'\n{"work":<18}{"images/s":>10}{"peak GiB":>10}{"GFLOP/s":>10}{"of peak":>9}')
    rows = []
    for work in hot_paths(**chosen, device=device):
        row = measure(work, device, peaks[work.precision], rounds=rounds)
        cells = f'{row.images_per_second:>10.3g}{row.peak_memory:>10.2f}{row.flops / 1e9:>10.4g}{row.share:>9.1%}'
        print(f'{row.name:<18}{cells}', flush=True)
        rows.append(Row(row.name, {'time at peak': 1 / row.share}, row._asdict()))
    return rows


def gpu(
    *,
    minutes: PositiveFloat = 10.0,
    out: str | None = None,
    resume: bool = False,
    markdown: str | None = None,
    smoke: bool = False,
) -> list[Row]:
    """Measure a GPU: matrix products, coding, EQ steps, transformers, sampling, caching, FID; the most important first.

    Weights are random and images built-in: nothing is downloaded. Each result is written at once. If a part fails, its
    line states the reason. You can continue an interrupted run with --resume.

    Args:
        minutes: Time budget; a part that would not fit does not begin.
        out: A JSON file, written after each part.
        resume: Continue with this file; only missing and failed parts are measured.
        markdown: A file for the table in Markdown, as in docs/performance.md.
        smoke: Run on the CPU, with tiny networks.
    """
    import torch

    from eqzoo.benchmarks.gpu import as_markdown, run_parts, target_lines
    from eqzoo.benchmarks.gpu_parts import TINY, Sizes, gpu_parts
    from eqzoo.distributed import use_device
    from eqzoo.machine import hardware

    if resume and out is None:
        raise ValueError('--resume: of which file? Expected --out FILE.json.')
    use_device('cpu' if smoke else 'cuda')  # says what is missing if there is no GPU
    device = torch.device('cpu' if smoke else 'cuda')
    settings = dict(device=torch.cuda.get_device_name() if not smoke else 'cpu', smoke=smoke)
    try:
        parts = gpu_parts(TINY if smoke else Sizes(), device)
        session = run_parts(parts, minutes=minutes, settings=settings, out=out, resume=resume, say=_say)
    finally:
        use_device('auto')
    print(*target_lines(session.rows), sep='\n')
    if markdown is not None:
        with replacing(markdown) as temporary:
            temporary.write_text(as_markdown(session, hardware()) + '\n', encoding='utf-8')
    return list(session.rows)


def _say(line: str) -> None:
    print(line, flush=True)
