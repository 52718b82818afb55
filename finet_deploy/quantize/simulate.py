"""What 8 bits do to a network, simulated in torch: every value that an int8 runtime rounds is rounded here.

A simulation decides (which equalization, which layers stay in fp32); it proves nothing. The exported file, run by its
own runtime, is what the certificate judges.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from finet_deploy.quantize.graph import Layer, layers, quantized_values
from finet_deploy.quantize.observe import Extremes

__all__ = ["LEVELS", "layer_sqnr", "outputs", "round_value", "simulated_sqnr", "sqnr_db"]

LEVELS = 255  # steps between the lowest and the highest value of 8 bits


def round_value(x: Tensor, low: float, high: float) -> Tensor:
    """x clamped to the range (widened to hold 0, which must be exact) and rounded to 256 levels in it.

    Inside the range it is off by at most half a step, `(high - low) / 255 / 2`, as the zero point is a level.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / LEVELS
    if step <= 0.0 or not math.isfinite(step):
        return torch.zeros_like(x)
    zero = round(-low / step)
    return ((x / step).round() + zero).clamp(0, LEVELS).sub(zero) * step


class _Simulator(Interpreter):
    def __init__(self, graph: GraphModule, rounded: Mapping[Node, Extremes]) -> None:
        super().__init__(graph)
        self.ranges = {node: (float(e.low.min()), float(e.high.max())) for node, e in rounded.items()}

    def run_node(self, n: Node) -> Any:
        y = super().run_node(n)
        return round_value(y, *self.ranges[n]) if n in self.ranges else y


def outputs(graph: GraphModule, images: Sequence[Tensor]) -> list[Tensor]:
    """The graph's own outputs, one an image (3, H, W)."""
    with torch.no_grad():
        return [graph(image[None]) for image in images]


def sqnr_db(reference: Tensor, found: Tensor) -> float:
    """`20 log10(||reference|| / ||reference - found||)`; infinite where they are equal."""
    noise = float((reference.double() - found.double()).norm())
    signal = float(reference.double().norm())
    if noise == 0.0:
        return math.inf
    return 20.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf


def simulated_sqnr(
    graph: GraphModule,
    seen: Mapping[Node, Extremes],
    images: Sequence[Tensor],
    truth: Sequence[Tensor],
    fp32: frozenset[str] = frozenset(),
) -> float:
    """The median over images of the SQNR of the graph's output (dB) with its values rounded.

    graph: with rounded weights. seen: `observe` of it. truth: what the network gives without any rounding.
    """
    chosen = quantized_values(graph, fp32)
    simulator = _Simulator(graph, {node: seen[node] for node in chosen if node in seen})
    with torch.no_grad():
        found = [simulator.run(image[None]) for image in images]
    return statistics.median(sqnr_db(y, x) for y, x in zip(truth, found))


class _LayerNoise(Interpreter):
    """Each layer's own noise: exact input rounded, rounded weights, output rounded, against its exact output."""

    def __init__(
        self,
        graph: GraphModule,
        originals: Mapping[str, tuple[Tensor, Tensor]],
        seen: Mapping[Node, Extremes],
    ) -> None:
        super().__init__(graph)
        self.layers: dict[Node, Layer] = {layer.node: layer for layer in layers(graph)}
        self.originals, self.seen = originals, seen
        self.power: dict[Node, tuple[float, float]] = {}

    def run_node(self, n: Node) -> Any:
        y = super().run_node(n)
        layer = self.layers.get(n)
        if layer is None or layer.source not in self.seen or n not in self.seen:
            return y
        weight, bias = self.originals[n.name]
        x, shape = self.env[layer.source], (1, -1, *(1,) * (y.ndim - 2))
        exact = layer.run(x, weight) + bias.view(shape)
        x = round_value(x, *_range(self.seen[layer.source]))
        found = round_value(layer.run(x, layer.weight) + layer.bias.view(shape), *_range(self.seen[n]))
        signal, noise = self.power.get(n, (0.0, 0.0))
        self.power[n] = (signal + float(exact.norm() ** 2), noise + float((exact - found).norm() ** 2))
        return exact


def _range(extremes: Extremes) -> tuple[float, float]:
    return float(extremes.low.min()), float(extremes.high.max())


def layer_sqnr(
    graph: GraphModule,
    originals: Mapping[str, tuple[Tensor, Tensor]],
    seen: Mapping[Node, Extremes],
    images: Sequence[Tensor],
) -> dict[str, float | None]:
    """Layer's node name -> SQNR of its output (dB) when everything before it is exact; None where nothing is lost.

    originals: node name -> weight and bias before rounding.
    """
    runner = _LayerNoise(graph, originals, seen)
    with torch.no_grad():
        for image in images:
            runner.run(image[None])
    found: dict[str, float | None] = {}
    for node, (signal, noise) in runner.power.items():
        found[node.name] = 10.0 * math.log10(signal / noise) if signal > 0.0 and noise > 0.0 else None
    return found
