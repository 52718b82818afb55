"""The few products that the moment form of FBN is made of, in the two layouts in which an image batch comes.

`Planes`: channels first, (N, C, P), one matrix an image. `Rows`: channels last or no positions at all, (M, C), one
matrix in all. Both take a batch (N, C, H, W) to that form and back without copying it.

Shape letters: N batch, C inputs, O outputs, G groups, c = C / G, P positions, M = N P.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Layout", "Planes", "Rows", "layout_of"]


class Planes:
    """(N, C, P): channels first."""

    @staticmethod
    def matrix(x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, P)."""
        return x.reshape(x.shape[0], x.shape[1], -1)

    @staticmethod
    def channel_sum(x: Tensor, dtype: torch.dtype) -> Tensor:
        return x.sum((0, 2), dtype=dtype)

    @staticmethod
    def per_channel(values: Tensor) -> Tensor:
        """(C) -> what broadcasts against the matrix."""
        return values.unsqueeze(-1)

    @staticmethod
    def scatter(x: Tensor, G: int) -> Tensor:
        """sum x_g x_g^T over batch and positions, (G, c, c)."""
        N, C, P = x.shape
        c = C // G
        if c == 1:
            return (x * x).sum((0, 2)).view(G, 1, 1)
        if c > 2 * P:  # N matrices of c x c would outgrow the input itself
            x_g = x.transpose(0, 1).reshape(G, c, N * P)
            return torch.bmm(x_g, x_g.transpose(1, 2))
        x_g = x.reshape(N * G, c, P)
        return torch.bmm(x_g, x_g.transpose(1, 2)).view(N, G, c, c).sum(0)

    @staticmethod
    def product(weight: Tensor, x: Tensor, bias: Tensor, shape: torch.Size) -> Tensor:
        """weight (O, C) x + bias (O) -> (N, O, H, W); N, H and W as in `shape`.

        Written into a tensor of that shape: an in-place activation could not follow on a view of it.
        """
        N, C, P = x.shape
        O = weight.shape[0]  # noqa: E741
        y = x.new_empty(shape[0], O, shape[2], shape[3])
        if O * C > P * (O + C):  # so few positions that one large product and two copies are faster
            flat = torch.addmm(bias.unsqueeze(-1), weight, x.transpose(0, 1).reshape(C, N * P))
            Planes.matrix(y).copy_(flat.view(O, N, P).transpose(0, 1))
        else:
            torch.baddbmm(bias.unsqueeze(-1), weight.expand(N, -1, -1), x, out=Planes.matrix(y))
        return y

    @staticmethod
    def cross(dy: Tensor, x: Tensor) -> Tensor:
        """dy x^T over batch and positions, (O, C)."""
        N, O, P = dy.shape  # noqa: E741
        C = x.shape[1]
        if O * C > P * (O + C):  # N products of O x C would outgrow the factors
            return torch.mm(dy.transpose(0, 1).reshape(O, N * P), x.transpose(0, 1).reshape(C, N * P).t())
        return torch.bmm(dy, x.transpose(1, 2)).sum(0)

    @staticmethod
    def add_blocks_(out: Tensor, blocks: Tensor, x: Tensor) -> Tensor:
        """out_g += blocks_g x_g, with symmetric blocks (G, c, c)."""
        N, C, P = x.shape
        G = blocks.shape[0]
        if G == C:
            return out.addcmul_(x, blocks.view(C, 1))
        c = C // G
        if c > P:  # N copies of the blocks would outgrow the input itself
            added = torch.bmm(blocks, x.transpose(0, 1).reshape(G, c, N * P))
            out.transpose(0, 1).add_(added.view(C, N, P))
        else:
            out.view(N * G, c, P).baddbmm_(blocks.repeat(N, 1, 1), x.reshape(N * G, c, P))
        return out


class Rows:
    """(M, C): channels last, or no positions at all."""

    @staticmethod
    def matrix(x: Tensor) -> Tensor:
        """(N, C, H, W) -> (M, C)."""
        return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])

    @staticmethod
    def channel_sum(x: Tensor, dtype: torch.dtype) -> Tensor:
        return x.sum(0, dtype=dtype)

    @staticmethod
    def per_channel(values: Tensor) -> Tensor:
        """(C) -> what broadcasts against the matrix."""
        return values

    @staticmethod
    def scatter(x: Tensor, G: int) -> Tensor:
        """sum x_g x_g^T over the rows, (G, c, c)."""
        M, C = x.shape
        if G == C:
            return (x * x).sum(0).view(G, 1, 1)
        x_g = x.view(M, G, C // G).transpose(0, 1)  # (G, M, c)
        return torch.bmm(x_g.transpose(1, 2), x_g)

    @staticmethod
    def product(weight: Tensor, x: Tensor, bias: Tensor, shape: torch.Size) -> Tensor:
        """weight (O, C) x + bias (O) -> (N, O, H, W), channels last; N, H and W as in `shape`."""
        size = (shape[0], weight.shape[0], shape[2], shape[3])
        y = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        torch.addmm(bias, x, weight.t(), out=Rows.matrix(y))
        return y

    @staticmethod
    def cross(dy: Tensor, x: Tensor) -> Tensor:
        """dy x^T over the rows, (O, C)."""
        return torch.mm(dy.t(), x)

    @staticmethod
    def add_blocks_(out: Tensor, blocks: Tensor, x: Tensor) -> Tensor:
        """out_g += blocks_g x_g, with symmetric blocks (G, c, c)."""
        M, C = x.shape
        G = blocks.shape[0]
        if G == C:
            return out.addcmul_(x, blocks.view(C))
        x_g = x.view(M, G, C // G).transpose(0, 1)  # (G, M, c)
        # Not baddbmm_ on the transposed view: the compiler's decomposition of it cannot view it back.
        out.view(M, G, C // G).add_(torch.bmm(x_g, blocks).transpose(0, 1))
        return out


Layout = type[Planes] | type[Rows]


def layout_of(x: Tensor, used: Tensor) -> Layout:
    """The layout in which a batch x (N, C, H, W) lies in memory; what lies in neither is copied to channels first.

    used: the positions of x that the layer reads. A single one is a row, however it lies.
    """
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return Rows if last or used.shape[2] * used.shape[3] == 1 else Planes
