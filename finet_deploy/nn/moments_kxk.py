"""The moment form of FBN for any kernel, and for layers with few outputs: memory does not grow with G here either.

Two forms, both saving only the input, the parameters and small matrices for the backward pass:

* `PatchMoments`: the same algebra as for 1x1 (see `moments`) on the unfolded patches, K = c kh kw values each; y is one
  ordinary convolution with the folded weight. Patches are unfolded for so many groups at a time that they stay below
  the size of the output. For K <= O: with many groups, above all.
* `GroupwiseRecompute`: one group after another, u_g is normalized, added to y and discarded; the backward pass computes
  it again. For K > O, where the patches and their K x K moments would cost more than a second convolution.

Both work on `x - s` with the mean s of each channel (a batch norm does not see a constant): half precision then rounds
the deviations, not the mean. Padding comes first, so that its zeros are shifted as well.

Shape letters: N batch, C inputs, O outputs, G groups, c = C / G, L output positions, K = c kh kw.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from finet_deploy.nn.moments import (
    Call,
    fold,
    fold_backward,
    full_precision,
    mean_over,
    output_shift,
    parameter_gradients,
    stat_dtype,
    unbiased,
)
from finet_deploy.nn.moments_layout import Planes
from finet_deploy.nn.moments_sync import all_reduce_sum

__all__ = ["GroupwiseRecompute", "PatchMoments"]


def channel_means(x: Tensor, call: Call) -> Tensor:
    """(C) the same in every process: any constant would do for the algebra, but a common one."""
    total = x.sum((0, 2, 3), dtype=stat_dtype(x))
    return mean_over(total, x.numel() // x.shape[1], call.group)[0]


def shifted(x: Tensor, s: Tensor, call: Call) -> Tensor:
    """The padded input less the mean of each channel, in the dtype of the moments."""
    ph, pw = call.padding
    padded = F.pad(x, (pw, pw, ph, ph)) if ph or pw else x
    return padded - s.view(-1, 1, 1)


def unpadded(dx: Tensor, x: Tensor, call: Call) -> Tensor:
    ph, pw = call.padding
    return dx[:, :, ph : ph + x.shape[2], pw : pw + x.shape[3]].to(x.dtype)


def total_count(y: Tensor, like: Tensor, group: Any) -> Tensor | int:
    """The number of values a channel, over all processes of `group`."""
    count = y.numel() // y.shape[1]
    return count if group is None else all_reduce_sum(group, like.new_full((), count))[0]


def convolution_backward(
    dy: Tensor, x: Tensor, weight: Tensor, call: Call, mask: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of an unpadded convolution to its input and its weight; undefined where the mask says no."""
    dx, dW, _ = torch.ops.aten.convolution_backward(
        dy, x, weight, None, call.stride, (0, 0), call.dilation, False, (0, 0), 1, (*mask, False)
    )
    return dx, dW


def patch_chunks(x: Tensor, weight: Tensor, call: Call) -> Iterator[tuple[slice, slice, Tensor]]:
    """Groups, their channels, and their patches (N, n K, L): n groups at a time, together no larger than the output."""
    c, K = weight.shape[1], weight[0].numel()
    O = weight.shape[0] // call.num_groups  # noqa: E741
    n = max(1, O // K)
    for first in range(0, call.num_groups, n):
        last = min(first + n, call.num_groups)
        part = x[:, first * c : last * c]
        patches = F.unfold(part, weight.shape[2:], call.dilation, (0, 0), call.stride)
        yield slice(first, last), slice(first * c, last * c), patches


class PatchMoments(torch.autograd.Function):
    """(N, C, H, W) -> y (N, O, H', W'), mean (G O) and unbiased var (G O) of the partial sums.

    Saved for backward: x, weight, gamma and the small s (C), m (G K), S (G, K, K), invstd (G, O).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        gamma: Tensor | None,
        beta: Tensor | None,
        call: Call,
    ) -> tuple[Tensor, Tensor, Tensor]:
        G, dtype = call.num_groups, stat_dtype(x)
        with full_precision(x):
            s = channel_means(x, call)
            xs = shifted(x, s, call)
            W = weight.to(dtype).view(G, weight.shape[0] // G, -1)  # (G, O, K)
            m, S, count = patch_moments(xs, weight, call)
            folded = fold(W, S, gamma, call.eps)
            kernel = folded.weight.to(call.dtype)  # (O, G K)
            y = F.conv2d(
                xs.to(call.dtype),
                kernel.view(-1, x.shape[1], *weight.shape[2:]),
                output_shift(kernel, m, beta, G),
                call.stride,
                0,
                call.dilation,
            )
            mean = torch.bmm(W, m.view(G, -1, 1)).squeeze(-1) + channel_part(W, s)
            mean = mean.view(-1) if bias is None else mean.view(-1) + bias
            var = unbiased(folded.var, count).view(-1)
        ctx.call, ctx.count = call, count
        ctx.save_for_backward(x, weight, gamma, s, m, S, folded.invstd)
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, gamma, s, m, S, invstd = ctx.saved_tensors
        call, dtype = ctx.call, stat_dtype(x)
        needs_x = ctx.needs_input_grad[0]
        with full_precision(x):
            xs = shifted(x, s, call)
            W = weight.to(dtype).view(call.num_groups, -1, weight[0].numel())
            dxs, T = _kernel_gradients(dy, xs, weight, W, gamma, invstd, call, needs_x)
            dy_sum = dy.sum((0, 2, 3), dtype=dtype)
            T = T.reshape(T.shape[0], -1).addr_(dy_sum, m, alpha=-1)
            found = fold_backward(T, dy_sum, W, m, S, gamma, invstd, ctx.count, call)
            dx = None
            if needs_x:
                dxs = dxs.to(dtype)
                K = W.shape[2]
                for groups, channels, patches in patch_chunks(xs, weight, call):
                    rows = slice(groups.start * K, groups.stop * K)
                    back = found.constant[rows].unsqueeze(-1).expand_as(patches).contiguous()
                    Planes.add_blocks_(back, found.quadratic[groups], patches)
                    dxs[:, channels] += F.fold(
                        back, xs.shape[2:], weight.shape[2:], call.dilation, (0, 0), call.stride
                    )
                dx = unpadded(dxs, x, call)
        return (dx, *parameter_gradients(ctx.needs_input_grad, weight, gamma, found), None)


def channel_part(W: Tensor, s: Tensor) -> Tensor:
    """What the means s of the channels add to the mean of u: (G, O)."""
    G, O, K = W.shape  # noqa: E741
    c = s.numel() // G
    return torch.bmm(W.view(G, O, c, K // c).sum(-1), s.view(G, c, 1)).squeeze(-1)


def patch_moments(xs: Tensor, weight: Tensor, call: Call) -> tuple[Tensor, Tensor, Tensor | int]:
    """Mean (G K) and covariance (G, K, K) of the patches, and how many there are, over all processes."""
    sums, scatters, count = [], [], 0
    for groups, _, patches in patch_chunks(xs, weight, call):
        count = patches.shape[0] * patches.shape[2]
        total = patches.sum((0, 2))
        patches -= (total / count).unsqueeze(-1)
        sums.append(total)
        scatters.append(Planes.scatter(patches, groups.stop - groups.start))
    total, scatter = torch.cat(sums), torch.cat(scatters)  # (G K), (G, K, K)
    if call.group is None:
        return total / count, scatter / count, count
    total_all, count_all = all_reduce_sum(call.group, total, total.new_full((), count))
    m = total_all / count_all
    apart = (total / count - m).view(scatter.shape[0], -1)  # this process's mean from that of all
    scatter = scatter + count * apart.unsqueeze(2) * apart.unsqueeze(1)
    (scatter,) = all_reduce_sum(call.group, scatter)
    return m, scatter / count_all, count_all


def _kernel_gradients(
    dy: Tensor,
    xs: Tensor,
    weight: Tensor,
    W: Tensor,
    gamma: Tensor | None,
    invstd: Tensor,
    call: Call,
    needs_x: bool,
) -> tuple[Tensor, Tensor]:
    """Through the ordinary convolution with the folded weight: gradients to its input and its weight (T)."""
    G, O, _ = W.shape  # noqa: E741
    a = invstd if gamma is None else invstd * gamma.view(G, O)
    kernel = (W * a.unsqueeze(-1)).transpose(0, 1).reshape(O, -1, *weight.shape[2:])
    if call.dtype == xs.dtype:
        return convolution_backward(dy, xs, kernel, call, (needs_x, True))
    low = call.dtype
    _, T = convolution_backward(dy.to(xs.dtype), xs, kernel, call, (False, True))
    dxs = xs
    if needs_x:
        dxs, _ = convolution_backward(dy, xs.to(low), kernel.to(low), call, (True, False))
    return dxs, T


class GroupwiseRecompute(torch.autograd.Function):
    """(N, C, H, W) -> y (N, O, H', W'), mean (G O) and unbiased var (G O) of the partial sums.

    Saved for backward: x, weight, gamma and the small s (C), means and invstd (G, O).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        gamma: Tensor | None,
        beta: Tensor | None,
        call: Call,
    ) -> tuple[Tensor, Tensor, Tensor]:
        G, dtype = call.num_groups, stat_dtype(x)
        O = weight.shape[0] // G  # noqa: E741
        with full_precision(x):
            s = channel_means(x, call)
            xs = shifted(x, s, call).to(call.dtype)
            y: Tensor | None = None
            count: Tensor | int | None = None
            means, variances, invstds = [], [], []
            for g, (x_g, W_g) in enumerate(_groups(xs, weight, G)):
                u = F.conv2d(x_g, W_g, None, call.stride, 0, call.dilation).to(dtype)
                count = total_count(u, s, call.group) if count is None else count
                (total,) = all_reduce_sum(call.group, u.sum((0, 2, 3)))
                mean = total / count
                u -= mean.view(-1, 1, 1)
                (scatter,) = all_reduce_sum(call.group, (u * u).sum((0, 2, 3)))
                var = scatter / count
                invstd = (var + call.eps).rsqrt()
                a = invstd if gamma is None else invstd * gamma[g * O : (g + 1) * O]
                u *= a.view(-1, 1, 1)
                y = u if y is None else y.add_(u)
                means.append(mean)
                variances.append(var)
                invstds.append(invstd)
            assert y is not None and count is not None  # G is at least 1
            if beta is not None:
                y += beta.view(G, O).sum(0).view(-1, 1, 1)
            centres, invstd = torch.stack(means), torch.stack(invstds)
            W = weight.to(dtype).view(G, O, -1)
            mean = (centres + channel_part(W, s)).view(-1)
            mean = mean if bias is None else mean + bias
            var = unbiased(torch.stack(variances), count).view(-1)
        ctx.call, ctx.count = call, count
        ctx.save_for_backward(x, weight, gamma, s, centres, invstd)
        ctx.mark_non_differentiable(mean, var)
        return y.to(call.dtype), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, gamma, s, centres, invstd = ctx.saved_tensors
        call, dtype, G = ctx.call, stat_dtype(x), ctx.call.num_groups
        with full_precision(x):
            xs = shifted(x, s, call).to(call.dtype)
            dy = dy.to(dtype)
            dy_sum = dy.sum((0, 2, 3))
            (dy_all,) = all_reduce_sum(call.group, dy_sum)
            a = invstd if gamma is None else invstd * gamma.view(G, -1)
            dxs = torch.empty_like(xs) if ctx.needs_input_grad[0] else None
            dW, dgamma = [], []
            c = weight.shape[1]
            for g, (x_g, W_g) in enumerate(_groups(xs, weight, G)):
                u = F.conv2d(x_g, W_g, None, call.stride, 0, call.dilation).to(dtype)
                u -= centres[g].view(-1, 1, 1)
                da = (dy * u).sum((0, 2, 3))
                dgamma.append(da * invstd[g])
                (da,) = all_reduce_sum(call.group, da)
                # du = a (dy - mean dy) - a invstd^2 mean(dy u) u: through u, its mean and its variance
                u *= (a[g] * invstd[g] ** 2 * da / -ctx.count).view(-1, 1, 1)
                u += (a[g] * dy_all / -ctx.count).view(-1, 1, 1)
                u.addcmul_(dy, a[g].view(-1, 1, 1))
                dx_g, dW_g = convolution_backward(u.to(call.dtype), x_g, W_g, call, (dxs is not None, True))
                dW.append(dW_g)
                if dxs is not None:
                    dxs[:, g * c : (g + 1) * c] = dx_g
            dx = None if dxs is None else unpadded(dxs, x, call)
        needed = ctx.needs_input_grad
        return (
            dx,
            torch.cat(dW).to(weight.dtype) if needed[1] else None,
            weight.new_zeros(weight.shape[0]) if needed[2] else None,
            torch.cat(dgamma).to(gamma.dtype) if needed[3] else None,
            dy_sum.expand(G, -1).reshape(-1) if needed[4] else None,
            None,
        )


def _groups(xs: Tensor, weight: Tensor, G: int) -> Iterator[tuple[Tensor, Tensor]]:
    """x_g (N, c, H, W) and W_g (O, c, kh, kw), in the dtype of the big products."""
    return zip(xs.chunk(G, 1), weight.to(xs.dtype).chunk(G))
