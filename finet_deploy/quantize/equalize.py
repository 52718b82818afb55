"""Cross-layer equalization: the same function with channel ranges that fit 8 bits better.

A ReLU, a pool, a sum and a gate are positively homogeneous in each channel: relu(s y) = s relu(y) for s > 0. So the
rows that make a channel may be divided by s and the columns that read it multiplied (Nagel et al., "Data-Free
Quantization through Weight Equalization and Bias Correction", arXiv 1906.04721). Channels that are tied, by the
identity of a residual block say, have one factor. And a constant may be taken off a channel that 1x1 layers alone
read, without padding: their biases take it up. Both are exact; in floating point, up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from finet_deploy.quantize.graph import ADD, MUL, RELU, Layer, aten, layers, quantized_values
from finet_deploy.quantize.observe import Extremes

__all__ = ["Changed", "equalize"]

MAX_SPREAD = 1e4  # between the factors of one value: beyond it a channel is dead, not small
# Positively homogeneous channel by channel, whatever their settings.
_KEEP = {
    *RELU,
    *(aten.max_pool2d.default, aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default),
    *(aten.dropout.default, aten.clone.default, aten.contiguous.default, aten.leaky_relu.default),
}
# Homogeneous where they leave the channels in place: images and channels stay dimensions 0 and 1.
_KEEP_CHANNELS = {
    *(aten.mean.dim, aten.flatten.using_ints, aten.view.default, aten.reshape.default),
    *(aten.squeeze.dims, aten.unsqueeze.default),
}


class Changed(NamedTuple):
    """How many values got factors, and how many an offset."""

    scaled: int
    shifted: int


class _Ties:
    """Union-find over values: tied ones share their channels' factors; a fixed one holds all of them at 1."""

    def __init__(self) -> None:
        self.parent: dict[Node, Node] = {}
        self._fixed: list[Node] = []

    def root(self, node: Node) -> Node:
        self.parent.setdefault(node, node)
        while self.parent[node] is not node:
            node = self.parent[node]
        return node

    def tie(self, a: Node, b: Node) -> None:
        self.parent[self.root(a)] = self.root(b)

    def fix(self, *nodes: Node) -> None:
        self._fixed += [node for node in nodes if node.op != "get_attr"]

    @property
    def fixed(self) -> set[Node]:
        return {self.root(node) for node in self._fixed}


def _ties(graph: GraphModule, found: list[Layer]) -> _Ties:
    ties, known = _Ties(), {layer.node: layer for layer in found}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            ties.fix(node)
        elif node.op == "output":
            ties.fix(*node.all_input_nodes)
        elif node in known:
            if known[node].shared:
                ties.fix(node, known[node].source)
        elif node.op == "call_function":
            _tie(ties, node)
    return ties


def _tie(ties: _Ties, node: Node) -> None:
    args = [argument for argument in node.args if isinstance(argument, Node)]
    if node.target in _KEEP or (node.target in _KEEP_CHANNELS and _keeps_channels(node)):
        ties.tie(node, args[0])
    elif node.target in ADD and len(args) == 2 and _channels(args[0]) == _channels(args[1]):
        ties.tie(node, args[0])
        ties.tie(node, args[1])
    elif (
        node.target in MUL and len(args) == 2 and _channels(args[0]) == _channels(node) and _is_gate(args[1])
    ):
        ties.tie(node, args[0])
        ties.fix(args[1])
    else:
        ties.fix(node, *node.all_input_nodes)


def _channels(node: Node) -> int | None:
    value = node.meta.get("val")
    return value.shape[1] if isinstance(value, Tensor) and value.ndim >= 2 and node.op != "get_attr" else None


def _keeps_channels(node: Node) -> bool:
    before, after = node.args[0].meta["val"], node.meta["val"]  # type: ignore[union-attr]
    if before.ndim < 2 or after.ndim < 2 or before.shape[:2] != after.shape[:2]:
        return False
    # A mean over H and W; or a flattening of what has one position.
    return node.target is aten.mean.dim or before.numel() == before.shape[0] * before.shape[1]


def _is_gate(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.ndim == 4 and value.shape[2:] == (1, 1)


@torch.no_grad()
def equalize(
    graph: GraphModule, seen: Mapping[Node, Extremes], strength: float, *, shift: bool = True
) -> Changed:
    """Scale and shift channels in place, by their ranges on the calibration images (`observe`).

    strength: 1 gives every channel of a value the same range, 0 every column of the weights that read it; between
    them, a = r^strength / w^(1 - strength), as in "SmoothQuant" (Xiao et al., arXiv 2211.10438), with r the channel's
    range and w its column's largest weight. Where depthwise layers alone read it, their own scale per channel takes
    up whatever is done, so that the strength is 1. `seen` is left as it was: observe again.
    """
    found = layers(graph)
    ties = _ties(graph, found)
    fixed = ties.fixed
    ranges = {node: extremes.magnitude.double() for node, extremes in seen.items()}
    shifted = sum(_shift(layer, found, seen, ranges) for layer in found if shift and not layer.shared)
    groups: dict[Node, list[Node]] = {}
    for node in quantized_values(graph):  # what a ReLU takes away needs no levels
        groups.setdefault(ties.root(node), []).append(node)
    scaled = 0
    for root, nodes in groups.items():
        makers = [layer for layer in found if ties.root(layer.node) is root]
        readers = [layer for layer in found if ties.root(layer.source) is root]
        if root in fixed or not makers or not readers:
            continue
        factors = _factors([ranges[node] for node in nodes], readers, strength)
        for layer in makers:
            _divide_rows(layer, factors)
        for layer in readers:
            _multiply_columns(layer, factors)
        scaled += 1
    return Changed(scaled, shifted)


def _shift(
    layer: Layer, found: list[Layer], seen: Mapping[Node, Extremes], ranges: dict[Node, Tensor]
) -> bool:
    """Centre a layer's channels when only 1x1 layers without padding read them."""
    readers = [other for other in found if other.source is layer.node]
    if not readers or len(readers) != len(layer.node.users) or layer.node not in seen:
        return False
    if not all(other.pointwise and not other.shared for other in readers):
        return False
    low, high = seen[layer.node].low.double(), seen[layer.node].high.double()
    centre = (low + high) / 2
    layer.bias.copy_(layer.bias.double() - centre)
    for other in readers:
        other.bias.copy_(other.bias.double() + other.weight.double().flatten(1) @ centre)
    ranges[layer.node] = (high - low) / 2
    return True


def _factors(ranges: list[Tensor], readers: list[Layer], strength: float) -> Tensor:
    """(C,) in fp64, with geometric mean 1. A channel that is always zero counts as an average one."""
    widest = torch.stack(ranges).amax(0)
    alive = widest > 0
    if not bool(alive.any()):
        return torch.ones_like(widest)
    dense = [reader for reader in readers if reader.groups == 1]
    if dense:
        columns = torch.stack(
            [layer.weight.double().flatten(2).abs().amax((0, 2)) if layer.weight.ndim == 4 else
             layer.weight.double().abs().amax(0) for layer in dense]
        ).amax(0)  # fmt: skip
        alive &= columns > 0
        if not bool(alive.any()):
            return torch.ones_like(widest)
        logs = strength * widest.clamp_min(1e-30).log() - (1 - strength) * columns.clamp_min(1e-30).log()
    else:
        logs = widest.clamp_min(1e-30).log()
    logs = torch.where(alive, logs - logs[alive].mean(), torch.zeros_like(logs))
    bound = torch.log(torch.tensor(MAX_SPREAD, dtype=torch.float64)) / 2
    return logs.clamp(-bound, bound).exp()


def _divide_rows(layer: Layer, factors: Tensor) -> None:
    shape = (-1, *(1,) * (layer.weight.ndim - 1))
    layer.weight.copy_(layer.weight.double() / factors.view(shape))
    layer.bias.copy_(layer.bias.double() / factors)


def _multiply_columns(layer: Layer, factors: Tensor) -> None:
    weight = layer.weight
    if weight.ndim == 2:
        weight.copy_(weight.double() * factors)
        return
    K, c = weight.shape[:2]  # c channels a group
    columns = factors.view(layer.groups, 1, c).expand(layer.groups, K // layer.groups, c).reshape(K, c, 1, 1)
    weight.copy_(weight.double() * columns)
