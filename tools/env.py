"""Print versions, devices and folders, for the report of a problem: python tools/env.py."""

from eqzoo.commands.cli import run_tool

if __name__ == '__main__':
    run_tool('env')
