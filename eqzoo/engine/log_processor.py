"""What the log says of the steps since it last spoke."""

import re
from typing import Any

from mmengine.runner import LogProcessor, Runner

from eqzoo.registry import LOG_PROCESSORS

_ALL_BUT_RATES = re.compile(r'^(?!.*lr$)')
_TIMES = re.compile(r'time')


@LOG_PROCESSORS.register_module()
class MeanLogProcessor(LogProcessor):
    """mmengine's, with means over the window of all that steps log, not of the losses alone."""

    def _collect_scalars(
        self, custom_cfg: list[dict[str, Any]], runner: Runner, mode: str, *more: Any
    ) -> dict[str, Any]:
        # each mode has its own: validations are not to be averaged
        self.mean_pattern = _ALL_BUT_RATES if mode == 'train' else _TIMES
        return super()._collect_scalars(custom_cfg, runner, mode, *more)
