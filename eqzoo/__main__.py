"""`python -m eqzoo COMMAND ...`; with several processes: `torchrun --nproc_per_node=8 -m eqzoo train CONFIG`."""

from eqzoo.commands.cli import main

if __name__ == '__main__':
    main()
