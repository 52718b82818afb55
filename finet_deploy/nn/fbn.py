"""Fine-grained Batch Normalization (FBN).

Luo et al., "Finet: Using Fine-grained Batch Normalization to Train Light-weight Neural Networks",
arXiv 2005.06828, Eq. 3: the sum over a convolution's inputs is split in G parts, and every partial sum is
batch-normalized before the parts are added:

    y = sum_g BN_g(W_g * x_g)

Computed as written ("grouped") this makes and stores G times as many channels. It is the reference that the other
forms are held against, and what `eval()` runs. Training takes the "moments" form (see `moments`): the same function,
gradients and running statistics at the memory and about the time of one ordinary convolution. For inference
`finet_deploy.fuse` folds the layer into that convolution.

Shape letters: N batch, C input channels, O output channels, G groups, H and W height and width.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finet_deploy.errors import UsageError, suggest
from finet_deploy.nn.moments_step import moment_form
from finet_deploy.nn.sync_norm import SynchronizedBatchNorm

__all__ = ["FBNConv2d", "FBNLinear", "Impl", "groups_by_channels", "resolve_num_groups", "set_impl"]

Impl = Literal["moments", "grouped"]
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _known_impl(impl: str) -> Impl:
    if impl not in get_args(Impl):
        raise UsageError(
            f"unknown impl {impl!r}", do=suggest(impl, get_args(Impl)) or 'use "moments" or "grouped"'
        )
    return cast(Impl, impl)


def _takes_moments(layer: FBNConv2d | FBNLinear, x: Tensor, ndim: int, inner: tuple[nn.Module, ...]) -> bool:
    """Whether this call may take the moment form: in training, with batch statistics, and nothing that looks inside.

    Hooks on the inner modules (pruning, observers) and another class of normalization see `u`, which only the grouped
    form has. Input that the inner convolution would refuse is left to it, and to its error message.
    """
    known = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm, SynchronizedBatchNorm)
    return (
        layer.impl == "moments"
        and layer.training
        and layer.bn.training
        and type(layer.bn) in known
        and x.dim() == ndim
        and x.is_floating_point()
        and not any(getattr(module, kind) for module in inner for kind in _HOOKS)
    )


def set_impl(model: nn.Module, impl: Impl) -> int:
    """Choose the form in which every FBN layer of `model` trains; returns the number of layers that changed.

    Raises UsageError (a ValueError) for an unknown form.
    """
    impl = _known_impl(impl)
    changed = 0
    for module in model.modules():
        if isinstance(module, FBNConv2d | FBNLinear) and module.impl != impl:
            module.impl = impl
            changed += 1
    return changed


def groups_by_channels(in_channels: int, channels_per_group: int) -> int:
    """The largest number of groups that divides `in_channels` and leaves each group at least `channels_per_group`.

    The paper's Table 6: 100 inputs at 20 a group are 5 groups; 24 inputs at 20 a group are one.
    """
    if channels_per_group < 1:
        raise UsageError(f"channels_per_group={channels_per_group} is not positive", do="give 1 or more")
    best = 1
    for num_groups in range(1, in_channels + 1):
        if in_channels % num_groups == 0 and in_channels // num_groups >= channels_per_group:
            best = num_groups
    return best


def resolve_num_groups(in_channels: int, num_groups: int | None, channels_per_group: int | None) -> int:
    """G for a layer with `in_channels` inputs, given as a number of groups or by channels per group.

    Raises UsageError (a ValueError) that names the divisors when G does not divide the inputs.
    """
    if (num_groups is None) == (channels_per_group is None):
        raise UsageError(
            f"num_groups={num_groups} and channels_per_group={channels_per_group}",
            do="give exactly one of the two",
        )
    if channels_per_group is not None:
        return groups_by_channels(in_channels, channels_per_group)
    assert num_groups is not None  # narrows the type: exactly one of the two is given
    if num_groups < 1 or num_groups > in_channels or in_channels % num_groups:
        divisors = [d for d in range(1, in_channels + 1) if in_channels % d == 0]
        raise UsageError(
            f"num_groups={num_groups} does not divide {in_channels} input channels",
            do=f"use one of {divisors}, or {_padded(in_channels, num_groups)}",
        )
    return num_groups


def _padded(in_channels: int, num_groups: int) -> str:
    if num_groups < 1:
        return "a positive number of groups"
    return f"{-(-in_channels // num_groups) * num_groups} input channels"


class FBNConv2d(nn.Module):
    """A 2-d convolution whose G partial sums over the inputs are batch-normalized one by one, then added.

    (N, C, H, W) -> (N, O, H', W'). Channel `g * O + o` of the inner convolution is output `o` of group `g`.
    With G = 1 this is exactly `Conv2d` followed by `BatchNorm2d`. `affine=False` leaves gamma and beta out
    (Table 5). `bias` adds one to every partial sum; in training the batch mean cancels it.

    Give `num_groups` (G), or `channels_per_group` (C/G, Table 6). Neither means G = 1. `impl` is the form in which
    the layer trains; parameters, state dict and results are the same in both.
    Raises UsageError (a ValueError) when G does not divide C, G > C, or a training batch has one value a channel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        *,
        num_groups: int | None = None,
        channels_per_group: int | None = None,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        bias: bool = False,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        impl: Impl = "moments",
    ) -> None:
        super().__init__()
        self.impl: Impl = _known_impl(impl)
        if num_groups is None and channels_per_group is None:
            num_groups = 1
        self.num_groups = G = resolve_num_groups(in_channels, num_groups, channels_per_group)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.conv = nn.Conv2d(
            in_channels,
            G * out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups=G,
            bias=bias,
            padding_mode=padding_mode,
        )
        self.bn = nn.BatchNorm2d(G * out_channels, eps=eps, momentum=momentum, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        if _takes_moments(self, x, 4, (self.conv, self.bn)):
            return self._moments(x)
        u = self.conv(x)  # (N, G*O, H', W')   u_g = W_g * x_g
        v = self.bn(u)  # (N, G*O, H', W')
        return v.unflatten(1, (self.num_groups, self.out_channels)).sum(1)  # (N, O, H', W')   Eq. 3

    def _moments(self, x: Tensor) -> Tensor:
        conv = self.conv
        left, right, top, bottom = (
            conv._reversed_padding_repeated_twice
        )  # as Conv2d resolves "same" and "valid"
        padding = (top, left)
        if conv.padding_mode != "zeros":
            x, padding = F.pad(x, (left, right, top, bottom), mode=conv.padding_mode), (0, 0)
        elif left != right or top != bottom:
            x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
        stride, dilation = cast(tuple[int, int], conv.stride), cast(tuple[int, int], conv.dilation)
        return moment_form(
            x,
            conv.weight,
            conv.bias,
            self.bn,
            num_groups=self.num_groups,
            stride=stride,
            padding=padding,
            dilation=dilation,
        )

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, num_groups={self.num_groups}, impl={self.impl}"


class FBNLinear(nn.Module):
    """The same for a linear layer: (N, C) -> (N, O); the weight has shape (G*O, C/G).

    Raises UsageError (a ValueError) when G does not divide C, G > C, or a training batch has one value a feature.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        num_groups: int | None = None,
        channels_per_group: int | None = None,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        bias: bool = False,
        impl: Impl = "moments",
    ) -> None:
        super().__init__()
        self.impl: Impl = _known_impl(impl)
        if num_groups is None and channels_per_group is None:
            num_groups = 1
        self.num_groups = G = resolve_num_groups(in_features, num_groups, channels_per_group)
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(G * out_features, in_features // G))
        self.bias = nn.Parameter(torch.empty(G * out_features)) if bias else None
        self.bn = nn.BatchNorm1d(G * out_features, eps=eps, momentum=momentum, affine=affine)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """`nn.Linear`'s default initialization, with the fan-in of one group."""
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        if self.bias is not None:
            bound = self.weight.shape[1] ** -0.5
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        if _takes_moments(self, x, 2, (self.bn,)):
            weight = self.weight[:, :, None, None]  # (G*O, C/G, 1, 1)
            y = moment_form(x[:, :, None, None], weight, self.bias, self.bn, num_groups=self.num_groups)
            return y.flatten(1)  # (N, O)
        N, G, O = x.shape[0], self.num_groups, self.out_features  # noqa: E741
        x_g = x.view(N, G, -1)  # (N, G, C/G)
        W_g = self.weight.view(G, O, -1)  # (G, O, C/G)
        u = torch.einsum("ngc,goc->ngo", x_g, W_g).reshape(N, G * O)  # (N, G*O)
        if self.bias is not None:
            u = u + self.bias
        return self.bn(u).view(N, G, O).sum(1)  # (N, O)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, num_groups={self.num_groups}, impl={self.impl}"
