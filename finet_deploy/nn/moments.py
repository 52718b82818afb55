"""FBN in training at the cost of one ordinary convolution: the moment form.

The batch statistics of a partial sum `u_g = W_g x_g` follow from the moments of its input alone. With
`m_g = E[x_g]` and `S_g = E[(x_g - m_g)(x_g - m_g)^T]` over batch and positions

    mean_g[o] = W_g[o] . m_g            var_g[o] = W_g[o] S_g W_g[o]^T

so `y = sum_g gamma_g (u_g - mean_g) / sqrt(var_g + eps) + beta_g` is one product with the folded weight
`F[o, g] = W_g[o] a_g[o]`, `a = gamma / sqrt(var + eps)`: `y = F (x - m) + sum_g beta_g`. The G times wider `u` never
exists, and the backward pass needs no more than `x`, the parameters and the small matrices. With `T = dy (x - m)^T`,
`da_g[o] = T_g[o] . W_g[o]` and `q = dL/dvar = -da gamma (var + eps)^(-3/2) / 2`

    dW_g = a T_g + 2 q W_g S_g          dgamma = da / sqrt(var + eps)          dbeta_g = sum dy
    dx_g = F_g^T (dy - mean dy) + (2 / M) (sum_o q[o] W_g[o]^T W_g[o]) (x_g - m_g)

All moments are taken from centred data in fp32 (fp64 for fp64 input): half-precision or raw sums of squares lose the
variance where the mean is large against it. Synchronized over processes, the moments are what is summed in the forward
pass and (da, sum dy) in the backward pass; gradients of the parameters stay local, as DDP expects them.

Shape letters: N batch, C inputs, O outputs, G groups, c = C / G, P positions, M = N P, K inputs of one partial sum
(c, or c kh kw for the patches of a larger kernel).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from finet_deploy.nn.moments_layout import layout_of
from finet_deploy.nn.moments_sync import all_reduce_sum

__all__ = [
    "Call",
    "PointwiseMoments",
    "fold",
    "fold_backward",
    "full_precision",
    "mean_over",
    "output_shift",
    "parameter_gradients",
    "stat_dtype",
    "unbiased",
]


def stat_dtype(x: Tensor) -> torch.dtype:
    """The dtype of moments: fp32, and fp64 for fp64 input."""
    return torch.promote_types(x.dtype, torch.float32)


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Autocast off: what is computed in which dtype is written out here."""
    device = x.device.type
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


class Call(NamedTuple):
    """What a training step of one layer needs beside its tensors."""

    num_groups: int
    eps: float
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    dtype: torch.dtype  # of the big products and of y: the autocast dtype under autocast
    group: Any  # the process group that the statistics are summed over; None: this process alone


class Fold(NamedTuple):
    """The small matrices of one layer in one step."""

    weight: Tensor  # (O, G K)   the folded weight F
    var: Tensor  # (G, O)   biased
    invstd: Tensor  # (G, O)


def _folded(W: Tensor, a: Tensor) -> Tensor:
    """W (G, O, K), a (G, O) -> (O, G K)."""
    G, O, K = W.shape  # noqa: E741
    folded = W.transpose(0, 1).clone(memory_format=torch.contiguous_format)
    return folded.mul_(a.t().unsqueeze(-1)).view(O, G * K)


def fold(W: Tensor, S: Tensor, gamma: Tensor | None, eps: float) -> Fold:
    """W (G, O, K), S (G, K, K), gamma (G O) or None -> the folded weight and the variances of u."""
    G, O, K = W.shape  # noqa: E741
    # One input a group: a product of numbers, and G may be large.
    product = W * S if K == 1 else torch.bmm(W, S)
    var = product.mul_(W).sum(-1).clamp_min_(0)  # rounding may leave a constant channel below 0
    invstd = (var + eps).rsqrt_()
    a = invstd if gamma is None else invstd * gamma.view(G, O)
    return Fold(_folded(W, a), var, invstd)


class FoldGradients(NamedTuple):
    weight: Tensor  # (O, G K)   the folded weight F again
    W: Tensor  # (G, O, K)
    gamma: Tensor  # (G O)
    beta: Tensor  # (G O)
    quadratic: Tensor  # (G, K, K)   dx_g += quadratic_g x_g: the way through the variance
    constant: Tensor  # (G K)   dx += constant: the way through the mean


def fold_backward(
    T: Tensor,
    dy_sum: Tensor,
    W: Tensor,
    m: Tensor,
    S: Tensor,
    gamma: Tensor | None,
    invstd: Tensor,
    count: Tensor | int,
    call: Call,
) -> FoldGradients:
    """T (O, G K) = dy (x - m)^T and dy_sum (O) -> all that the big products of the backward pass need.

    count: the number of values M behind the moments, over all processes of the call's group.
    """
    G, O, K = W.shape  # noqa: E741
    eps = call.eps
    T_g = T.view(O, G, K).transpose(0, 1)  # (G, O, K)
    a = invstd if gamma is None else invstd * gamma.view(G, O)
    slope = -a * invstd**2  # 2 q = da * slope
    da = (T_g * W).sum(-1)
    dW = T_g.clone(memory_format=torch.contiguous_format)
    if K == 1:  # a layer does not see the scale of such a weight but through eps: the difference, written out
        dW *= (a * eps * invstd**2).unsqueeze(-1)
    else:
        dW *= a.unsqueeze(-1)
        dW.addcmul_(torch.bmm(W, S), (da * slope).unsqueeze(-1))
    da_all, dy_all = all_reduce_sum(call.group, da, dy_sum)
    W_q = W * (da_all * slope).div_(count).unsqueeze(-1)
    quadratic = W_q.mul_(W).sum(1, keepdim=True) if K == 1 else torch.bmm(W_q.transpose(1, 2), W)
    weight = _folded(W, a)
    constant = torch.mv(weight.t(), dy_all) / -count
    constant -= torch.bmm(m.view(G, 1, K), quadratic).view(-1)  # symmetric; rows are faster here than columns
    return FoldGradients(
        weight,
        dW,
        (da * invstd).reshape(-1),
        dy_sum.expand(G, O).reshape(-1),
        quadratic,
        constant,
    )


def unbiased(var: Tensor, count: Tensor | int) -> Tensor:
    """As running_var has it (Bessel's correction)."""
    return var * (count / (count - 1))


def mean_over(total: Tensor, count: int, group: Any) -> tuple[Tensor, Tensor | int]:
    """The mean of sums over `count` values in each process of `group`, and the number of values in all of them."""
    if group is None:
        return total / count, count
    total, count_all = all_reduce_sum(group, total, total.new_full((), count))
    return total / count_all, count_all


def output_shift(kernel: Tensor, m: Tensor, beta: Tensor | None, G: int) -> Tensor:
    """sum_g beta_g - F m, (O), in the kernel's dtype; F as it is rounded, so that just what it adds is taken off."""
    shift = torch.mv(kernel.to(m.dtype), m).neg_()
    if beta is not None:
        shift += beta.view(G, -1).sum(0)
    return shift.to(kernel.dtype)


def strided(x: Tensor, stride: tuple[int, int]) -> Tensor:
    """The positions of x (N, C, H, W) that a 1x1 convolution reads."""
    return x if stride == (1, 1) else x[:, :, :: stride[0], :: stride[1]]


class PointwiseMoments(torch.autograd.Function):
    """(N, C, H, W) -> y (N, O, H', W'), mean (G O) and unbiased var (G O) of the partial sums; 1x1, no padding.

    Works on x - s with the mean s of each channel, and on the mean m that the rounding of s leaves over.
    Saved for backward: x, weight, gamma and the small s (C), m (C), S (G, c, c), invstd (G, O). Never y.
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
            used = strided(x, call.stride)
            layout = layout_of(x, used)
            matrix = layout.matrix(used)  # (N, C, P) or (M, C)
            s, count = mean_over(layout.channel_sum(matrix, dtype), matrix.numel() // x.shape[1], call.group)
            xs = matrix - layout.per_channel(s)
            total, scatter = all_reduce_sum(call.group, layout.channel_sum(xs, dtype), layout.scatter(xs, G))
            m = total / count
            m_g = m.view(G, -1)
            S = (scatter / count).addcmul_(m_g.unsqueeze(2), m_g.unsqueeze(1), value=-1)
            W = weight.to(dtype).view(G, -1, x.shape[1] // G)  # (G, O, c)
            folded = fold(W, S, gamma, call.eps)
            kernel = folded.weight.to(call.dtype)
            y = layout.product(kernel, xs.to(call.dtype), output_shift(kernel, m, beta, G), used.shape)
            mean = torch.bmm((s + m).view(G, 1, -1), W.transpose(1, 2)).view(-1)
            mean = mean if bias is None else mean + bias
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
        with full_precision(x):
            used = strided(x, call.stride)
            layout = layout_of(x, used)
            xs = layout.matrix(used) - layout.per_channel(s)
            dy = layout.matrix(dy)
            dy_sum = layout.channel_sum(dy, dtype)
            T = layout.cross(dy.to(dtype), xs).addr_(dy_sum, m, alpha=-1)
            W = weight.to(dtype).view(call.num_groups, -1, x.shape[1] // call.num_groups)
            found = fold_backward(T, dy_sum, W, m, S, gamma, invstd, ctx.count, call)
            dx = None
            if ctx.needs_input_grad[0]:
                constant = found.constant
                if call.dtype != dtype:  # added in full precision: one rounding at the end, not one a term
                    constant = torch.zeros_like(constant, dtype=call.dtype)
                dx = layout.product(found.weight.t().to(call.dtype), dy, constant, used.shape).to(dtype)
                if call.dtype != dtype:
                    dx += found.constant.view(-1, 1, 1)
                layout.add_blocks_(layout.matrix(dx), found.quadratic, xs)
                dx = dx.to(x.dtype)
                if used.shape != x.shape:
                    spread = torch.zeros_like(x)
                    spread[:, :, :: call.stride[0], :: call.stride[1]] = dx
                    dx = spread
        return (dx, *parameter_gradients(ctx.needs_input_grad, weight, gamma, found), None)


def parameter_gradients(
    needed: tuple[bool, ...], weight: Tensor, gamma: Tensor | None, found: FoldGradients
) -> tuple[Tensor | None, ...]:
    """Gradients of weight, bias, gamma and beta, where they are needed. The batch mean cancels the bias."""
    G_O = weight.shape[0]
    return (
        found.W.reshape(weight.shape).to(weight.dtype) if needed[1] else None,
        weight.new_zeros(G_O) if needed[2] else None,
        found.gamma.to(weight.dtype if gamma is None else gamma.dtype) if needed[3] else None,
        found.beta if needed[4] else None,
    )
