"""Look into latent spaces: python tools/inspect.py MODEL [MODEL ...] IMAGES --out DIR."""

# `python tools/ANYTHING.py` puts this folder first on sys.path, where this file hides the standard library's
# `inspect` from every tool: from argparse, dataclasses, torch. So before anything else is imported the
# folder leaves the path (nothing in it is for importing), and whoever meant the other module gets it.
import os
import sys

_FOLDER = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120, as pathlib imports much
sys.path[:] = [path for path in sys.path if os.path.realpath(path) != _FOLDER]

if __name__ == 'inspect':
    # the import system returns what it finds here once this file has run
    del sys.modules['inspect']
    import inspect

    sys.modules['inspect'] = inspect

if __name__ == '__main__':  # not `__mp_main__`, as which a spawned process reads this file again
    from eqzoo.commands.laboratory import inspect
    from eqzoo.commands.parsing import run

    run(inspect)
