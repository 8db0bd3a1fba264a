"""A study's pictures: D(τ∘E(x)) and the latents' principal components, of every autoencoder."""

from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image

from eqzoo.autoencoders import Autoencoder
from eqzoo.engine import load_config
from eqzoo.engine.picture_hook import example_images
from eqzoo.pictures import Row, default_cases, draw_grid, fit_basis
from eqzoo.registry import build
from eqzoo.studies.study import Study
from eqzoo.zoo import load

_IMAGES = 8


@torch.no_grad()
def draw_gallery(study: Study, weights: Mapping[str, Path]) -> Image.Image:
    """Draw for each autoencoder D(τ∘E(x)) below τ∘x, and its latents' components.

    Autoencoders with one start have one basis and range of colours, fitted on all of them together.

    Args:
        study: Whose autoencoders these are.
        weights: Their files, by name.
    """
    config = load_config(next(iter(study.autoencoders.values())).config)
    images = example_images(build(config.test_dataloader.dataset), _IMAGES)
    models = {name: load(file) for name, file in weights.items()}
    cases = default_cases(next(iter(models.values())).grid(*images.shape[-2:]))
    rows = [Row('x', images)]
    rows += [Row(f'τx  {label}', tau(images, params)) for label, (tau, params) in cases.items()]
    latents = {name: model.latents(images) for name, model in models.items()}
    for name, model in models.items():
        alike = [
            latents[each] for each, arm in study.autoencoders.items() if arm.start == study.autoencoders[name].start
        ]
        for label, (tau, params) in cases.items():
            rows.append(Row(f'{name}: D(τE(x)) {label}', _decoded(model, tau(latents[name], params))))
        rows.append(Row(f'{name}: PCA of E(x)', fit_basis(*alike).colours(latents[name]), fills=True))
    return draw_grid(rows)


def _decoded(model: Autoencoder, latents: torch.Tensor) -> torch.Tensor:
    return model.decode(model.normalization.denormalize(latents))
