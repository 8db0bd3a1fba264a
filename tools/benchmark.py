"""Speed and memory as ratios within one run: python tools/benchmark.py SUBCOMMAND ..."""

from eqzoo.commands.benchmark import coding, eq_step
from eqzoo.commands.benchmark_evaluation import frechet, rfid
from eqzoo.commands.benchmark_generators import generator_step, sampling
from eqzoo.commands.benchmark_latents import cache, growth, store
from eqzoo.commands.benchmark_speed import speed
from eqzoo.commands.parsing import run_subcommand

if __name__ == '__main__':
    run_subcommand(
        {
            'cache': cache,
            'coding': coding,
            'eq-step': eq_step,
            'frechet': frechet,
            'generator-step': generator_step,
            'growth': growth,
            'rfid': rfid,
            'sampling': sampling,
            'speed': speed,
            'store': store,
        }
    )
