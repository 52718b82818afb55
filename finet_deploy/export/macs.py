"""Multiply-adds of a network, counted by torch's own flop counter."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["count_macs"]


def count_macs(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-adds of all convolutions and matrix products for one input of `input_shape`, batch included.

    The field's convention: a multiply-add counts once; additions, activations, pooling and normalization do not
    count. torch counts two floating-point operations for each.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.zeros(input_shape))
    return int(counter.get_total_flops()) // 2
