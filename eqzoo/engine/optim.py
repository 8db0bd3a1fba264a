"""mmengine's optimizer wrapper, without its clipping."""

from mmengine.optim import OptimWrapper

from eqzoo.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class StepOptimWrapper(OptimWrapper):
    """Step an optimizer; `Training.update` clips, before: mmengine's own clipping reads the norm in every step."""

    def _clip_grad(self) -> None:
        """Do nothing."""


def clip_limit(optimizer: OptimWrapper) -> float | None:
    """Return the norm to which an optimizer's `clip_grad=dict(max_norm=…)` clips gradients; None for no clipping.

    Raises:
        ValueError: If it says anything else.
    """
    options = optimizer.clip_grad_kwargs
    if options is None:
        return None
    if set(options) != {'max_norm'} or not options['max_norm'] > 0:
        raise ValueError(f'optim_wrapper.clip_grad: got {options}; accepted is dict(max_norm=NUMBER) above 0, or None.')
    return options['max_norm']
