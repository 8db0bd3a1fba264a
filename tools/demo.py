"""Plain fine-tuning against equivariant fine-tuning in a few minutes: python tools/demo.py."""

from eqzoo.commands.demo import demo
from eqzoo.commands.parsing import run

if __name__ == '__main__':
    run(demo)
