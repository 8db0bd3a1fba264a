"""Watches a codebook while it trains, and brings unused codes back if wanted."""

from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from eqzoo.evaluators.codebook import perplexity
from eqzoo.randomness import seeded
from eqzoo.registry import HOOKS

_STREAM = 2  # beside 0 and 1 of `StepRandomness`


@HOOKS.register_module()
class CodebookHook(Hook):
    """Log how a `VQAutoencoder` uses its codes, and revive those that it does not use.

    Each step logs `codebook/usage`, the share of the K codes that any process chose,
    `codebook/perplexity`, exp of the entropy of that choice (1 to K), and, with
    `revive_after`, `codebook/revived`. A code that nothing chose for `revive_after` steps is
    replaced by a feature of the step at hand, drawn at random (as Jukebox does,
    arXiv 2005.00341, Sec. 3), and its optimizer state is forgotten. The count of idle steps is
    saved in checkpoints.

    Args:
        revive_after: Steps without use after which a code is replaced. None: never.

    Raises:
        ValueError: If `revive_after` is not positive.
    """

    def __init__(self, revive_after: int | None = None) -> None:
        if revive_after is not None and revive_after < 1:
            raise ValueError(f'CodebookHook.revive_after must be at least 1 step, or None, got {revive_after}.')
        self.revive_after = revive_after
        self.idle: Tensor | None = None
        self._features: list[Tensor] = []
        self._indices: list[Tensor] = []

    def before_run(self, runner: Runner) -> None:
        """Check that there is a codebook.

        Raises:
            ValueError: If there is none.
        """
        autoencoder = runner.model.autoencoder
        if not autoencoder.has_codebook:
            raise ValueError(f'CodebookHook: {type(autoencoder).__name__} has no codebook; leave the hook out.')
        if self.idle is None:
            self.idle = torch.zeros(autoencoder.num_codes, dtype=torch.long, device=autoencoder.last_layer.device)

    def before_train(self, runner: Runner) -> None:
        """Listen to the quantizer; only now, when the moving average has been copied without it."""
        self._listener = runner.model.autoencoder.quantize.register_forward_hook(self._listen)

    def after_train(self, runner: Runner) -> None:
        """Stop listening."""
        self._listener.remove()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Forget what was quantised outside of a step."""
        self._features.clear()
        self._indices.clear()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Log this step's usage and revive codes that are due."""
        counts = torch.bincount(torch.cat(self._indices), minlength=len(self.idle)).double()
        all_reduce(counts)
        scalars = {'usage': (counts > 0).double().mean(), 'perplexity': perplexity(counts)}
        self.idle = torch.where(counts > 0, 0, self.idle + 1)
        if self.revive_after is not None:
            scalars['revived'] = self._revive(runner, data_batch['draws'])
        outputs |= {f'codebook/{name}': value for name, value in scalars.items()}  # read with the step's other values

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Go on from the saved counts."""
        saved = checkpoint.get('codebook_idle')
        if saved is not None:
            self.idle = saved.to(runner.model.autoencoder.last_layer.device)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Save the counts."""
        checkpoint['codebook_idle'] = self.idle.cpu()

    def _listen(self, module: Any, inputs: tuple[Tensor, ...], outputs: Any) -> None:
        self._indices.append(outputs[2][2].flatten())
        if self.revive_after is not None:
            self._features.append(inputs[0].detach().movedim(1, -1).flatten(0, -2))

    @torch.no_grad()
    def _revive(self, runner: Runner, draws: Tensor) -> int:
        """Replace the codes that are due by features of the whole step; return how many."""
        due = (self.idle >= self.revive_after).nonzero().flatten()
        if not len(due):
            return 0
        features = self._everyones_features(draws)
        order = torch.randperm(len(features), generator=seeded(runner.seed, _STREAM, runner.iter))
        due = due[: len(features)]
        codebook = runner.model.autoencoder.quantize.embedding.weight
        codebook[due] = features[order[: len(due)]].to(codebook)
        for state in runner.optim_wrapper['autoencoder'].optimizer.state.get(codebook, {}).values():
            if isinstance(state, Tensor) and state.shape == codebook.shape:
                state[due] = 0
        self.idle[due] = 0
        return len(due)

    def _everyones_features(self, draws: Tensor) -> Tensor:
        """Return the features (N, C) of this step's samples, in the order of their draws, however many processes."""
        own = torch.cat(self._features)
        parts = all_gather_object((draws, own.view(len(draws), -1, own.shape[-1]).cpu()))
        all_draws, samples = (torch.cat(each) for each in zip(*parts, strict=True))
        return samples[all_draws.argsort()].flatten(0, 1)
