"""One training step's forward pass of an FBN layer in the moment form: which form fits, and the running statistics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from finet_deploy.errors import UsageError
from finet_deploy.nn.moments import Call, PointwiseMoments
from finet_deploy.nn.moments_kxk import GroupwiseRecompute, PatchMoments
from finet_deploy.nn.moments_sync import SyncGroup

__all__ = ["moment_form", "process_group_of", "update_running_statistics"]


def process_group_of(bn: nn.Module) -> Any:
    """The processes that this normalization shares its statistics with, or None: itself alone."""
    if isinstance(bn, nn.SyncBatchNorm):
        return SyncGroup(bn.process_group).active()
    sync = getattr(bn, "sync", None)
    return None if sync is None else sync.active()


def update_running_statistics(bn: _BatchNorm, mean: Tensor, var: Tensor) -> None:
    """As `BatchNorm2d` does it; `momentum=None` is the mean over all batches. var: unbiased."""
    if not bn.track_running_stats or bn.running_mean is None or bn.running_var is None:
        return
    with torch.no_grad():
        assert bn.num_batches_tracked is not None  # it comes and goes with the other two
        bn.num_batches_tracked.add_(1)
        weight: Tensor | float = (
            1 / bn.num_batches_tracked.to(mean.dtype) if bn.momentum is None else bn.momentum
        )
        for running, batch in ((bn.running_mean, mean), (bn.running_var, var)):
            running.lerp_(
                batch.to(running.dtype), weight if isinstance(weight, float) else weight.to(running.dtype)
            )


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of the big products: autocast's where it is on, as for a convolution; it leaves fp64 alone."""
    device = x.device.type
    if (
        torch.amp.is_autocast_available(device)
        and torch.is_autocast_enabled(device)
        and x.dtype != torch.float64
    ):
        return torch.get_autocast_dtype(device)
    return x.dtype


def output_size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def moment_form(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    bn: _BatchNorm,
    *,
    num_groups: int,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> Tensor:
    """x (N, C, H, W), weight (G O, C / G, kh, kw) -> (N, O, H', W'), and `bn`'s running statistics are updated.

    Raises UsageError (a ValueError) when there is one value a channel: its variance would be 0 for any input.
    """
    group = process_group_of(bn)
    kernel = weight.shape[2:]
    positions = 1
    for axis in (0, 1):
        positions *= output_size(x.shape[axis + 2], kernel[axis], stride[axis], padding[axis], dilation[axis])
    if group is None and x.shape[0] * positions <= 1:
        raise UsageError(
            f"Expected more than 1 value per channel when training, got input size {tuple(x.shape)}",
            do="give a larger batch, or call eval()",
        )
    call = Call(num_groups, bn.eps, stride, padding, dilation, compute_dtype(x), group)
    inputs, outputs = weight[0].numel(), weight.shape[0] // num_groups
    form: Any
    if inputs > outputs:
        form = GroupwiseRecompute
    elif kernel == (1, 1) and padding == (0, 0):
        form = PointwiseMoments
    else:
        form = PatchMoments
    y, mean, var = form.apply(x, weight, bias, bn.weight, bn.bias, call)
    update_running_statistics(bn, mean, var)
    return y
