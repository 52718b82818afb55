"""Folding arithmetic: one small pure function per identity, on tensors, always in fp64.

Shape letters: C input channels, O output channels, G groups, k kernel size (any number of axes),
`scale` and `shift` the per-channel affine map `y = scale * x + shift` that a batch normalization is in eval mode.
Every function takes tensors of any floating dtype, on any device, and returns fp64 on the CPU: some accelerators have
no fp64, and the fold is the same bits wherever the model lies. The caller rounds once, at the very end.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["fold_after", "fold_before", "fold_partial_sums", "scalar_terms", "scale_and_shift"]


def _exact(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)


def scale_and_shift(
    mean: Tensor, var: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(C,) running statistics -> (C,) scale, mean and beta with `BN(x) = (x - mean) * scale + beta`.

    gamma = 1 and beta = 0 where they are None (`affine=False`). The mean stays apart from beta, so that the
    difference with a convolution's bias is formed before it is scaled.
    """
    scale = (_exact(var) + eps).rsqrt()
    if gamma is not None:
        scale = scale * _exact(gamma)
    offset = torch.zeros_like(scale) if beta is None else _exact(beta)
    return scale, _exact(mean), offset


def scalar_terms(scale: Tensor | None, shift: Tensor | None, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """One factor and one summand (1,) for all channels, in the terms of `scale_and_shift`; None is 1 and 0."""
    ones, zeros = torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    factor = ones if scale is None else ones * _exact(scale)
    return factor, zeros, zeros if shift is None else zeros + _exact(shift)


def fold_after(
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor,
    mean: Tensor,
    beta: Tensor,
    *,
    transposed: bool = False,
    groups: int = 1,
) -> tuple[Tensor, Tensor]:
    """Convolution or linear layer, then BN: `s * W` and `beta + (b - mean) * s`.

    weight: (O, C/groups, *k), (O, C) for a linear layer, or (C, O/groups, *k) when `transposed`.
    """
    weight = _exact(weight)
    if transposed:
        per_group = weight.unflatten(0, (groups, -1))  # (groups, C/groups, O/groups, *k)
        spread = scale.view(groups, 1, -1, *[1] * (weight.dim() - 2))
        folded = (per_group * spread).flatten(0, 1)
    else:
        folded = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    start = torch.zeros_like(scale) if bias is None else _exact(bias)
    return folded, beta + (start - mean) * scale


def fold_before(
    weight: Tensor, bias: Tensor | None, scale: Tensor, mean: Tensor, beta: Tensor, *, groups: int = 1
) -> tuple[Tensor, Tensor]:
    """BN, then a convolution without padding or a linear layer: `W * s` and `b + sum_i,k W * (beta - mean * s)`.

    weight: (O, C/groups, *k) or (O, C); scale, mean, beta: (C,). Wrong at the border of a padded convolution,
    whose zeros are added after the normalization.
    """
    weight = _exact(weight)
    per_group = weight.reshape(
        groups, weight.shape[0] // groups, weight.shape[1], -1
    )  # (groups, O/g, C/g, K)
    folded = per_group * scale.view(groups, 1, -1, 1)
    shift = (beta - mean * scale).view(groups, -1)  # (groups, C/g)
    added = torch.einsum("goik,gi->go", per_group, shift).reshape(-1)  # (O,)
    start = torch.zeros_like(added) if bias is None else _exact(bias)
    return folded.reshape(weight.shape), start + added


def fold_partial_sums(
    weight: Tensor, bias: Tensor | None, scale: Tensor, mean: Tensor, beta: Tensor, *, num_groups: int
) -> tuple[Tensor, Tensor]:
    """FBN (Luo et al. 2020, Eq. 3): G normalized partial sums become one dense layer.

    weight: (G*O, C/G, *k), row `g * O + o` is output o of group g -> (O, C, *k). The groups see disjoint inputs,
    so their kernels are laid side by side on the input axis; the biases of the groups are added.
    """
    folded, offset = fold_after(weight, bias, scale, mean, beta)
    slices = folded.unflatten(0, (num_groups, -1))  # (G, O, C/G, *k)
    return slices.transpose(0, 1).flatten(1, 2).contiguous(), offset.view(num_groups, -1).sum(0)
