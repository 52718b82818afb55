"""Pixels as they are: a network whose input is 0 to 255, with the standardization in its first convolution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace as with_fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn

from finet_deploy.passes.ir import argument, as_conv, constant, is_call, sole_user

if TYPE_CHECKING:
    from finet_deploy.images import Preprocessing

__all__ = ["RawPixels", "fold_standardization", "raw_inputs", "raw_preprocessing"]

aten = torch.ops.aten
LEVELS = 255.0


class RawPixels(nn.Module):
    """(N, 3, H, W), 0 to 255 -> what `model` returns for the standardized picture.

    mean, std: of the training set, of values from 0 to 1, as `Preprocessing` has them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", LEVELS * torch.tensor(mean)[None, :, None, None])
        self.register_buffer("std", LEVELS * torch.tensor(std)[None, :, None, None])
        self.train(model.training)

    def forward(self, x: Tensor) -> Tensor:
        return self.model((x - self.mean) / self.std)


def raw_preprocessing(preprocessing: Preprocessing) -> Preprocessing:
    """How a picture becomes the input of `RawPixels`: values of 0 to 1 times 255."""
    return with_fields(preprocessing, mean=(0.0, 0.0, 0.0), std=(1 / LEVELS,) * 3)


def raw_inputs(inputs: Mapping[str, Tensor], preprocessing: Preprocessing) -> dict[str, Tensor]:
    """The pixels that standardize to these inputs, (1, 3, H, W) fp32; noise and extremes lie outside of 0 to 255."""
    mean, std = (torch.tensor(v).double()[:, None, None] for v in (preprocessing.mean, preprocessing.std))
    return {name: (LEVELS * (x.double() * std + mean)).float() for name, x in inputs.items()}


def fold_standardization(module: fx.GraphModule) -> list[str]:
    """(x - mean) / std before a convolution: the division goes into the weights, the mean into the bias.

    The mean only where the convolution does not pad: its zeros lie beside standardized values, where they are the
    mean. Where it pads, the subtraction stays, one operation on the picture.
    """
    done = []
    for node in list(module.graph.nodes):
        conv = as_conv(module, node)
        if conv is None or conv.groups != 1 or not is_call(conv.input, aten.div.Tensor, aten.mul.Tensor):
            continue
        scaled = conv.input
        factor = _per_input(module, argument(scaled, 1), conv.in_channels)
        if factor is None or sole_user(scaled) != node:
            continue
        factor = 1 / factor if is_call(scaled, aten.div.Tensor) else factor
        weight, bias, source = conv.weight * factor[:, None, None], conv.bias, argument(scaled)
        offset = _offset(module, source, conv.in_channels)
        folded = offset is not None and conv.padding == (0, 0) and sole_user(source) == scaled
        if folded:
            assert offset is not None
            bias = bias - weight.sum((2, 3)) @ offset
            source = argument(source)
        conv.rewritten(weight, bias, source=source)
        done.append(f"{conv.name}: took in the {'mean and the ' if folded else ''}deviation of its input")
    return done


def _offset(module: fx.GraphModule, node: fx.Node, channels: int) -> Tensor | None:
    """The constant, one a channel, that `node` takes off its input."""
    if not is_call(node, aten.sub.Tensor) or node.kwargs:  # kwargs: a multiple is taken off
        return None
    return _per_input(module, argument(node, 1), channels)


def _per_input(module: fx.GraphModule, value: object, channels: int) -> Tensor | None:
    tensor = constant(module, value)
    if (
        tensor is None
        or tensor.ndim < 3
        or tensor.shape[-3:] != (channels, 1, 1)
        or tensor.numel() != channels
    ):
        return None
    return tensor.reshape(channels)
