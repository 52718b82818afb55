"""Weights rounded to 8 bits, a scale per output channel, with the mean of what that changes taken off the bias.

Rounding changes a channel's mean in one direction for every image, and a deep network adds these shifts up: on
Finet-large they are four fifths of the weights' error. `E[conv(x, W_q - W)]` over the calibration images is known, so
it is subtracted ("bias correction", Nagel et al., arXiv 1906.04721, section 4.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from finet_deploy.quantize.graph import Layer, layers

__all__ = ["WEIGHT_LEVELS", "round_layers", "round_weight"]

WEIGHT_LEVELS = 127  # symmetric: -127 to 127 times the scale, as XNNPACK and ONNX Runtime have it


def round_weight(weight: Tensor) -> Tensor:
    """(K, ...) rounded to the nearest of 255 levels per output channel: off by half of `max|row| / 127` at most."""
    rows = weight.double().flatten(1)
    scale = rows.abs().amax(1, keepdim=True) / WEIGHT_LEVELS
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return ((rows / scale).round() * scale).view_as(weight).to(weight.dtype)


class _MeanErrors(Interpreter):
    """Sums, over images, of each layer's mean output (K,) with the error of its weights as weights."""

    def __init__(self, graph: GraphModule, errors: dict[Node, tuple[Layer, Tensor]]) -> None:
        super().__init__(graph)
        self.errors = errors
        self.sums: dict[Node, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        if n in self.errors:
            layer, error = self.errors[n]
            x = self.fetch_args_kwargs_from_env(n)[0][0]
            y = layer.run(x, error)
            mean = y.transpose(0, 1).flatten(1).double().mean(1)
            self.sums[n] = self.sums.get(n, 0) + mean
        return super().run_node(n)


@torch.no_grad()
def round_layers(graph: GraphModule, images: Sequence[Tensor], fp32: frozenset[str] = frozenset()) -> None:
    """Round every layer's weights and correct its bias, in place. fp32: names of operators that are left alone.

    images: (3, H, W) each. The weights stay fp32 tensors that hold rounded values, so that whoever rounds them again
    with the same rule gets the same.
    """
    chosen = [layer for layer in layers(graph) if layer.node.name not in fp32 and not layer.shared]
    rounded = {layer.node: round_weight(layer.weight) for layer in chosen}
    errors = {layer.node: (layer, rounded[layer.node] - layer.weight) for layer in chosen}
    runner = _MeanErrors(graph, errors)
    for image in images:
        runner.run(image[None])
    for layer in chosen:
        layer.weight.copy_(rounded[layer.node])
        layer.bias.copy_(layer.bias.double() - runner.sums[layer.node] / len(images))
