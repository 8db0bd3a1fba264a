"""A study's pictures: D(τ∘E(x)) and the latents' principal components, of every autoencoder."""

from collections.abc import Sequence

import torch
from PIL import Image

from eqzoo.autoencoders import Autoencoder
from eqzoo.engine import load_config
from eqzoo.engine.picture_hook import example_images
from eqzoo.pictures import Row, default_cases, draw_grid, fit_basis
from eqzoo.registry import build
from eqzoo.studies.plan import Plan
from eqzoo.studies.study import Study
from eqzoo.zoo import load

_IMAGES = 8


@torch.no_grad()
def draw_gallery(study: Study, plan: Plan, names: Sequence[str], seed: int) -> Image.Image:
    """Draw for each autoencoder D(E(x)) and D(τ∘E(x)) below x and τ∘x, and its latents' components.

    Autoencoders with one start have one basis and range of colours, fitted on all of them together.

    Args:
        study: Whose autoencoders these are.
        plan: Its stages, done.
        names: Which autoencoders.
        seed: Which of each.
    """
    (test,) = plan.measured[names[0], seed].commands
    config = load_config(test.words[0], test.overrides)
    images = example_images(build(config.test_dataloader.dataset), _IMAGES)
    weights = {name: plan.tuned[name, seed] for name in names}
    models = {name: load(file) for name, file in weights.items()}
    cases = default_cases(next(iter(models.values())).grid(*images.shape[-2:]))
    rows = [Row('x', images)]
    rows += [Row(f'τx  {label}', tau(images, params)) for label, (tau, params) in cases.items()]
    latents = {name: model.latents(images) for name, model in models.items()}
    for name, model in models.items():
        rows.append(Row(f'{name}: D(E(x))', _decoded(model, latents[name])))
        for label, (tau, params) in cases.items():
            rows.append(Row(f'{name}: D(τE(x)) {label}', _decoded(model, tau(latents[name], params))))
        alike = [latents[each] for each in names if _origin(study, each) == _origin(study, name)]
        rows.append(Row(f'{name}: PCA of E(x)', fit_basis(*alike).colours(latents[name]), fills=True))
    return draw_grid(rows)


def _origin(study: Study, name: str) -> tuple[str | None, str]:
    arm = study.autoencoders[name]
    return arm.start, arm.config


def _decoded(model: Autoencoder, latents: torch.Tensor) -> torch.Tensor:
    return model.decode(model.normalization.denormalize(latents))
