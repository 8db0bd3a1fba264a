"""Colours of latents, shared by or aligned between several autoencoders."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from eqzoo.pictures import ColourBasis, cells_of, fit_basis

# A correlation. Measured on CIFAR-10: 0.86 to 0.99 between a start and its fine-tunings, plain or with EQ-VAE, and
# between these; near 0 between unrelated autoencoders.
_SAME_SPACE = 0.5


class SharedBasis(NamedTuple):
    """The colours of one autoencoder's latents, and their relation to the others' colours.

    Args:
        basis: For latents in generator units.
        group: The autoencoders that share this basis, itself included.
        reference: The autoencoder to whose colours these are rotated; None in the first group.
        agreement: The mean correlation of the three colours with the reference's, cell by cell; None without one.
    """

    basis: ColourBasis
    group: tuple[str, ...]
    reference: str | None = None
    agreement: float | None = None


def share_bases(latents: Mapping[str, Tensor]) -> dict[str, SharedBasis]:
    """Return a colour basis for each autoencoder's latents (N, C, h, w) of the same images.

    Latents of one space (`is_one_space`), such as those before and after fine-tuning, share a basis and a range
    of colours, fitted on all of them: the same latent has the same colour. Others have a basis of
    their own, which is rotated to agree with the first one: see `align_basis`.

    Args:
        latents: By the autoencoder's name, in generator units.
    """
    groups: list[list[str]] = []
    for name, own in latents.items():
        group = next((group for group in groups if is_one_space(latents[group[0]], own)), None)
        if group is None:
            groups.append([name])
        else:
            group.append(name)
    bases = {}
    for group in groups:
        members = [latents[name] for name in group]
        shared = SharedBasis(fit_basis(*members), tuple(group))
        if bases:
            reference = next(iter(latents))
            shared = _aligned(shared, members, reference, bases[reference].basis, latents[reference])
        bases |= dict.fromkeys(group, shared)
    return {name: bases[name] for name in latents}


def is_one_space(first: Tensor, second: Tensor) -> bool:
    """Return whether two autoencoders encode the same images into one latent space.

    They do if their latents have the same shape and a `correlation` of 0.5 or more.
    """
    return first.shape == second.shape and correlation(first, second) >= _SAME_SPACE


def correlation(first: Tensor, second: Tensor) -> float:
    """Return the correlation of latents (N, C, h, w) over all values, without channel means; 0 for constants."""
    centred = [(each - each.mean(dim=0)).double() for each in map(cells_of, (first, second))]
    return F.cosine_similarity(*(each.flatten() for each in centred), dim=0).item()


def align_basis(own: Tensor, target: Tensor) -> tuple[Tensor, float]:
    """Return the rotation R (3, 3) of components that brings `own` @ R nearest to `target`, and their agreement.

    This is the orthogonal Procrustes problem (Schönemann 1966): R = U Vᵀ with U S Vᵀ = ownᵀ target.

    Args:
        own: (P, 3), each column with mean 0 and variance 1.
        target: The components at the same positions, standardised in the same way.

    Returns:
        R, and the mean correlation of the three columns.
    """
    u, s, vh = torch.linalg.svd(own.T @ target)
    return u @ vh, s.sum().item() / (3 * len(own))


def _aligned(
    shared: SharedBasis, members: Sequence[Tensor], reference: str, target: ColourBasis, target_latents: Tensor
) -> SharedBasis:
    """Rotate a group's basis to the colours that the reference has at the same places of the images.

    All components have equal weight, whatever their variance, because all colours do.
    """
    # on the coarser of the two grids: the finer latents are averaged
    size = [min(sides) for sides in zip(members[0].shape[2:], target_latents.shape[2:], strict=True)]
    own_basis = shared.basis
    components, deviations = zip(
        *(
            _standardised(basis, _resized(latents, size))
            for basis, latents in ((own_basis, members[0]), (target, target_latents))
        ),
        strict=True,
    )
    rotation, agreement = align_basis(*components)
    known = len(own_basis.directions)
    directions = (rotation[:known] / deviations[0][:known, None]).T @ own_basis.directions.double()
    turned = own_basis._replace(directions=directions.float(), low=torch.zeros(3), high=torch.zeros(3))
    return SharedBasis(turned.spread(*members), shared.group, reference, agreement)


def _standardised(basis: ColourBasis, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Return components (P, 3) with mean 0 and variance 1, missing ones 0, and their deviations (3,)."""
    components = basis.components(latents).double()
    components = F.pad(components, (0, 3 - components.shape[1]))
    components = components - components.mean(dim=0)
    deviation = components.square().mean(dim=0).sqrt()
    # constant components have no direction: division by infinity makes them 0
    deviation = torch.where(deviation > 1e-6 * deviation.max(), deviation, torch.inf)
    return components / deviation, deviation


def _resized(latents: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(latents.float(), list(size), mode='area')  # the mean of the cells in each place
