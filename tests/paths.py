"""Four paths a user takes, and the files of the package that each enters; `house.py --paths` prints them.

Each runs real commands with `--smoke`. A file is entered when a function of it is called: imports do not count.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# Runs a tool under a profiler until the named function is entered, and writes which files were entered before.
_TRACER = """
import json, runpy, sys, threading
root, stop, out, script, *words = sys.argv[1:]
sys.path.insert(0, root)
entered, importing, stopped = {}, [], []  # a dict keeps the order
def profile(frame, event, argument):
    code = frame.f_code
    if stopped or not code.co_filename.startswith((f'{root}/eqzoo/', f'{root}/registry/')):
        return
    if code.co_name == '<module>':  # its classes and decorators run too, and enter nothing
        importing.append(code) if event == 'call' else importing.pop() if event == 'return' else None
    elif event == 'call' and not importing:
        entered[code.co_filename[len(root) + 1:]] = True
        if stop and code.co_qualname.endswith(stop):
            stopped.append(True)
threading.setprofile(profile)
sys.setprofile(profile)
sys.argv = [script, *words]
try:
    runpy.run_path(script, run_name='__main__')
finally:
    sys.setprofile(None)
    with open(out, 'w') as file:
        json.dump(list(entered), file)
"""

_LOAD = 'import sys, eqzoo\neqzoo.load(sys.argv[1])\n'


def trace_paths(root: Path) -> dict[str, list[str]]:
    """Return the files entered on each path, in that order, by its title; `root` is a checkout of any layout."""
    with tempfile.TemporaryDirectory() as folder:
        tracer = _Tracer(root, Path(folder))
        dit = 'configs/dit/dit_tiny_shapes.py'
        tracer.run('train', 'configs/demo/rot_scale.py', '--smoke')
        checkpoint = sorted(Path(folder).rglob('iter_*.pth'))[-1]
        tracer.run('convert', str(checkpoint), f'{folder}/foreign.ckpt', '--to', 'ldm')
        (tracer.folder / 'load.py').write_text(_LOAD)
        found = {
            '(a) tools/train.py to the loss of an autoencoder': tracer.trace(
                'tools/train.py', 'configs/eqvae/sdxl_rot_scale.py', '--smoke', stop='ReconstructionLoss.forward'
            ),
            '(b) latents written, read, to the loss of a generator': list(
                dict.fromkeys(
                    [
                        *tracer.trace('tools/cache_latents.py', dit, '--smoke'),
                        *tracer.trace('tools/train.py', dit, '--smoke', stop='GaussianDiffusion.losses'),
                    ]
                )
            ),
        }
        tracer.run('train', dit, '--smoke')
        found['(c) tools/test.py to the distance of samples'] = tracer.trace('tools/test.py', dit, '--smoke')
        found['(d) eqzoo.load of a foreign checkpoint'] = tracer.trace(
            str(tracer.folder / 'load.py'), f'{folder}/foreign.ckpt'
        )
        return found


class _Tracer:
    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        for each in ('configs', 'tools'):  # runs happen in the empty folder, on this checkout's files
            (folder / each).symlink_to(root / each)
        self.environment = {**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1'}

    def run(self, command: str, *words: str) -> None:
        """Run a command untraced."""
        self._call(sys.executable, str(self.root / 'tools' / f'{command}.py'), *words)

    def trace(self, script: str, *words: str, stop: str = '') -> list[str]:
        """Return the files that a script enters until the function `stop` is called."""
        out = self.folder / 'entered.json'
        self._call(sys.executable, '-c', _TRACER, str(self.root), stop, str(out), script, *words)
        return json.loads(out.read_text())

    def _call(self, *words: str) -> None:
        result = subprocess.run(words, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        if result.returncode:
            raise RuntimeError(
                f'{" ".join(words[:1] + words[2:])[-300:]}\n{result.stdout[-800:]}{result.stderr[-2000:]}'
            )
