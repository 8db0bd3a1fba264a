"""A study's pictures: D(τ∘E(x)) and the latents' principal components, of every autoencoder."""

from collections.abc import Sequence

import torch
from PIL import Image

from eqzoo.autoencoders import Autoencoder
from eqzoo.engine import load_config
from eqzoo.engine.picture_hook import example_images
from eqzoo.laboratory import share_bases
from eqzoo.pictures import Row, default_cases, draw_grid
from eqzoo.registry import build
from eqzoo.studies.plan import Plan
from eqzoo.zoo import load

_IMAGES = 8


@torch.no_grad()
def draw_gallery(plan: Plan, names: Sequence[str], seed: int) -> Image.Image:
    """Draw for each autoencoder D(E(x)) and D(τ∘E(x)) below x and τ∘x, and its latents' components.

    Colours are those of the laboratory: one basis where latents mean the same, else turned to agree.

    Args:
        plan: A study's stages, done.
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
    bases = share_bases(latents)
    for name, model in models.items():
        rows.append(Row(f'{name}: D(E(x))', _decoded(model, latents[name])))
        for label, (tau, params) in cases.items():
            rows.append(Row(f'{name}: D(τE(x)) {label}', _decoded(model, tau(latents[name], params))))
        rows.append(Row(f'{name}: PCA of E(x)', bases[name].basis.colours(latents[name]), fills=True))
    return draw_grid(rows)


def _decoded(model: Autoencoder, latents: torch.Tensor) -> torch.Tensor:
    return model.decode(model.normalization.denormalize(latents))
