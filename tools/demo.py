"""Plain fine-tuning against equivariant fine-tuning in a few minutes: python tools/demo.py."""

from eqzoo.commands.cli import run_tool

if __name__ == '__main__':
    run_tool('demo')
