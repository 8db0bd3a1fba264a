"""Latents as colours that mean the same in several autoencoders."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from eqzoo.pictures import ColourBasis, cells_of, fit_basis

# Between the two: 0.86 to 0.99 was found from a start on CIFAR-10 to its fine-tuning, plain or with EQ-VAE, on its
# end and among them; of strangers it is near 0.
_SAME_SPACE = 0.5


class SharedBasis(NamedTuple):
    """The colours of one autoencoder's latents, and what they have to do with the others'.

    Args:
        basis: Of generator units.
        group: The autoencoders that have the very same one, itself among them.
        reference: The autoencoder to whose colours these are turned; None for those of its own group.
        agreement: The mean correlation of the three colours with the reference's, cell by cell; None without one.
    """

    basis: ColourBasis
    group: tuple[str, ...]
    reference: str | None = None
    agreement: float | None = None


def share_bases(latents: Mapping[str, Tensor]) -> dict[str, SharedBasis]:
    """Return a colour basis for each autoencoder's latents (N, C, h, w) of the same images.

    Latents of one space (`is_one_space`), such as before and after fine-tuning, have one basis and one range of
    colours, fitted on all of them together: the same latent is the same colour. Others have a basis of
    their own, which is turned to agree with the first one's: see `align`.

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
    """Whether the channels of two autoencoders' latents of the same images mean the same.

    That is: as many channels and cells, and a correlation of 0.5 or more over all of them, each channel's
    mean taken off.
    """
    return first.shape == second.shape and correlation(first, second) >= _SAME_SPACE


def correlation(first: Tensor, second: Tensor) -> float:
    """Return the correlation of latents (N, C, h, w) over all values, channel means taken off; 0 for constants."""
    centred = [(each - each.mean(dim=0)).double() for each in map(cells_of, (first, second))]
    return F.cosine_similarity(*(each.flatten() for each in centred), dim=0).item()


def align(own: Tensor, target: Tensor) -> tuple[Tensor, float]:
    """Return the rotation R (3, 3) of components that brings `own` @ R nearest to `target`, and how near that is.

    This is the orthogonal Procrustes problem (Schönemann 1966): R = U Vᵀ with U S Vᵀ = ownᵀ target.

    Args:
        own: (P, 3), of mean 0 and variance 1 a column, as are those of:
        target: The components of the same positions.

    Returns:
        R, and the mean correlation of the three columns.
    """
    u, s, vh = torch.linalg.svd(own.T @ target)
    return u @ vh, s.sum().item() / (3 * len(own))


def _aligned(
    shared: SharedBasis, members: Sequence[Tensor], reference: str, target: ColourBasis, target_latents: Tensor
) -> SharedBasis:
    """Turn a group's basis to the colours that the reference has at the same places of the images.

    Components count alike whatever their variance, since as colours they do.
    """
    # on the coarser grid of both, where each has what the other can have
    size = [min(sides) for sides in zip(members[0].shape[2:], target_latents.shape[2:], strict=True)]
    own_basis = shared.basis
    components, deviations = zip(
        *(
            _standardised(basis, _resized(latents, size))
            for basis, latents in ((own_basis, members[0]), (target, target_latents))
        ),
        strict=True,
    )
    rotation, agreement = align(*components)
    known = len(own_basis.directions)
    directions = (rotation[:known] / deviations[0][:known, None]).T @ own_basis.directions.double()
    turned = own_basis._replace(directions=directions.float(), low=torch.zeros(3), high=torch.zeros(3))
    return SharedBasis(turned.spread(*members), shared.group, reference, agreement)


def _standardised(basis: ColourBasis, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Return components (P, 3) of mean 0 and variance 1, missing ones 0, and their deviations (3,)."""
    components = basis.components(latents).double()
    components = F.pad(components, (0, 3 - components.shape[1]))
    components = components - components.mean(dim=0)
    deviation = components.square().mean(dim=0).sqrt()
    # what does not vary has no direction: it is left as it is
    deviation = torch.where(deviation > 1e-6 * deviation.max(), deviation, torch.inf)
    return components / deviation, deviation


def _resized(latents: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(latents.float(), list(size), mode='area')  # the mean of the cells that lie there
