"""Batch normalization over the batches of all processes, on any device: the sums are what is communicated.

torch's `SyncBatchNorm` runs on accelerators only. This one runs wherever `torch.distributed` has a backend, CPU with
gloo included, and gives what one process with the whole batch gives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from finet_deploy.nn.moments import stat_dtype, unbiased
from finet_deploy.nn.moments_step import update_running_statistics
from finet_deploy.nn.moments_sync import SyncGroup, all_reduce_sum

__all__ = ["SynchronizedBatchNorm"]


class _Normalize(torch.autograd.Function):
    """x (N, C, ...) -> y, mean (C), unbiased var (C) over all processes of `group`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float, group: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        dtype, axes, shape = stat_dtype(x), _others(x), _per_channel(x)
        total = x.sum(axes, dtype=dtype)
        total, count = all_reduce_sum(group, total, total.new_full((), x.numel() // x.shape[1]))
        mean = total / count
        centred = x - mean.view(shape)
        (scatter,) = all_reduce_sum(group, (centred * centred).sum(axes))
        var = scatter / count
        invstd = (var + eps).rsqrt()
        centred *= (invstd if gamma is None else invstd * gamma).view(shape)
        if beta is not None:
            centred += beta.view(shape)
        ctx.group, ctx.has_beta = group, beta is not None
        ctx.save_for_backward(x, gamma, mean, invstd, count)
        var = unbiased(var, count)
        ctx.mark_non_differentiable(mean, var)
        return centred.to(x.dtype), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, gamma, mean, invstd, count = ctx.saved_tensors
        dtype, axes, shape = stat_dtype(x), _others(x), _per_channel(x)
        normalized = (x - mean.view(shape)) * invstd.view(shape)
        dbeta = dy.sum(axes, dtype=dtype)
        dgamma = (dy * normalized).sum(axes)
        dy_all, through_all = all_reduce_sum(ctx.group, dbeta, dgamma)
        a = invstd if gamma is None else invstd * gamma
        normalized *= (through_all / -count).view(shape)
        normalized += dy - (dy_all / count).view(shape)
        dx = (normalized * a.view(shape)).to(x.dtype)
        return (
            dx if ctx.needs_input_grad[0] else None,
            dgamma.to(gamma.dtype) if ctx.needs_input_grad[1] else None,
            dbeta if ctx.needs_input_grad[2] else None,
            None,
            None,
        )


def _others(x: Tensor) -> tuple[int, ...]:
    return (0, *range(2, x.dim()))


def _per_channel(x: Tensor) -> tuple[int, ...]:
    return (-1, *([1] * (x.dim() - 2)))


class SynchronizedBatchNorm(_BatchNorm):
    """BatchNorm1d, 2d or 3d whose batch is that of all processes; alone, and in eval mode, it is just that.

    Input (N, C) or (N, C, ...). State dict and parameters are those of BatchNorm.
    """

    def __init__(self, num_features: int, *args: Any, sync: SyncGroup | None = None, **kwargs: Any) -> None:
        super().__init__(num_features, *args, **kwargs)
        self.sync = SyncGroup() if sync is None else sync

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")

    def forward(self, input: Tensor) -> Tensor:
        group = self.sync.active() if self.training else None
        if group is None:
            return super().forward(input)
        self._check_input_dim(input)
        y, mean, var = _Normalize.apply(input, self.weight, self.bias, self.eps, group)
        update_running_statistics(self, mean, var)
        return y
