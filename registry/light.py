"""mmengine's names that reading a config needs, imported without the packages that only other work of mmengine needs.

Most of the CPU time of help pages and of mistakes in a config is `import mmengine`, and half of that is for arrays,
formatting code, drawing tables and progress bars, and opening URLs.
"""

from eqzoo.lazy import postponed

# Of these mmengine binds functions and classes when it is imported, which it calls later: it makes no subclass of them.
with postponed(
    'numpy',
    'yapf',
    'yapf.yapflib',
    'yapf.yapflib.yapf_api',
    'rich',
    'rich.console',
    'rich.table',
    'rich.text',
    'urllib.request',
    'mmengine.utils.progressbar_rich',
):
    import mmengine.config.config as config_module
    from mmengine.config import Config
    from mmengine.registry import Registry, root
    from mmengine.utils import get_object_from_string

__all__ = ['Config', 'Registry', 'config_module', 'get_object_from_string', 'root']
