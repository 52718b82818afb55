"""Passes that choose shapes for a core's kernels: zero channels that fill a tile, pixels that do not waste one."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, fx

from finet_deploy.passes.ir import ELEMENTWISE, Conv, as_conv, convolutions, is_call, shape, sole_user
from finet_deploy.passes.kernels import Kernels, copy_cost, kernels

__all__ = ["pad_channels", "split_pixels"]

aten = torch.ops.aten

_KEEP_CHANNELS = (aten.mean.dim, aten.max_pool2d.default, aten.avg_pool2d.default, aten.slice.Tensor)
_BETWEEN = (aten.add.Tensor, aten.mul.Tensor, aten.sub.Tensor)
# A depthwise 3x3 and what is element-wise cost about this many instructions a channel and pixel (Finet-large, A76).
PER_CHANNEL_AND_PIXEL = 1.0
MAX_PIECES = 3
PAYS = 0.99  # less than one in a hundred is within what the table leaves out


def pad_channels(module: fx.GraphModule, core: str) -> list[str]:
    """Zero channels, where the tile kernel for a full multiple of 8 outputs is so much better that they pay.

    Tensors that must have equally many channels (through depthwise convolutions, additions, gates, pooling) are
    padded together. The new channels are zero weights with a zero bias on the way in, and meet zero weights on the
    way out: nothing that is read ever depends on them. Groups that reach an input, an output or an operator that
    counts channels stay as they are.
    """
    table, groups = kernels(core), _Groups(module)
    done = []
    for group in groups.paddable():
        before = group.channels
        after = -(-before // 8) * 8
        if after == before or groups.cost(group, after, table) > PAYS * groups.cost(group, before, table):
            continue
        group.channels = after
        done.append(f"{group.layers[0]} and {len(group.layers) - 1} more: {before} channels to {after}")
    if done:
        groups.apply()
    return done


class _Group:
    """Tensors with one number of channels. `layers`: convolutions that make them."""

    def __init__(self, channels: int) -> None:
        self.original = self.channels = channels
        self.frozen = False
        self.layers: list[str] = []
        self.pixels = 0  # of depthwise and element-wise steps: what padding costs there


class _Groups:
    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.convs = list(convolutions(module))
        self.of: dict[fx.Node, _Group] = {}
        parents: dict[fx.Node, fx.Node] = {}

        def root(node: fx.Node) -> fx.Node:
            while parents.setdefault(node, node) is not node:
                node = parents[node]
            return node

        for node in module.graph.nodes:
            for other in self._tied(node):
                parents[root(node)] = root(other)
        for node in module.graph.nodes:
            if len(shape(node)) == 4:
                top = root(node)
                self.of[node] = self.of.setdefault(top, _Group(shape(top)[1]))
        for node in module.graph.nodes:
            self._note(node)

    def _tied(self, node: fx.Node) -> Iterator[fx.Node]:
        """Inputs of `node` that must have as many channels as it has."""
        conv = as_conv(self.module, node)
        if conv is not None:
            if conv.is_depthwise:
                yield conv.input
            return
        if len(shape(node)) != 4:
            return
        if node.target in ELEMENTWISE or self._keeps(node):
            yield node.args[0]  # type: ignore[misc]
        elif is_call(node, *_BETWEEN):
            for item in node.all_input_nodes:
                if shape(item)[1:2] == shape(node)[1:2]:
                    yield item

    def _keeps(self, node: fx.Node) -> bool:
        """Pooling and slices of pixels. A slice of channels, or a mean over them, counts channels."""
        if not is_call(node, *_KEEP_CHANNELS):
            return False
        if is_call(node, aten.slice.Tensor):
            return len(node.args) > 1 and int(node.args[1]) in (2, 3)  # type: ignore[arg-type]
        if is_call(node, aten.mean.dim):
            return all(axis % 4 in (2, 3) for axis in node.args[1])  # type: ignore[union-attr, operator]
        return True

    def _note(self, node: fx.Node) -> None:
        conv = as_conv(self.module, node)
        if conv is not None:
            reads = [] if conv.groups == 1 or conv.is_depthwise else [conv.input, node]
            if conv.groups == 1:
                self.of[node].layers.append(conv.name)
            elif conv.is_depthwise:
                self.of[node].pixels += _pixels(node)
        elif list(self._tied(node)) and all(self._fits(item, node) for item in node.all_input_nodes):
            reads = []
            self.of[node].pixels += _pixels(node)
        else:
            reads = [node, *node.all_input_nodes]
        for item in reads:
            if item in self.of:
                self.of[item].frozen = True

    def _fits(self, item: fx.Node, node: fx.Node) -> bool:
        """Whether an operand follows when `node` is padded: computed in its group, or one value for all channels."""
        if item.op == "get_attr":
            return not shape(item) or shape(item)[-3:-2] in ((), (1,))
        return self.of.get(item) is self.of[node] or shape(item)[1:2] == (1,)

    def paddable(self) -> list[_Group]:
        """Groups that convolutions alone make and read, in the network's order."""
        groups = dict.fromkeys(self.of.values())
        return [group for group in groups if group.layers and not group.frozen]

    def cost(self, group: _Group, channels: int, table: Kernels) -> float:
        """Instructions of all that touches the group, with so many channels."""
        total = PER_CHANNEL_AND_PIXEL * group.pixels * channels
        for conv in self.convs:
            into, out = self.of[conv.input], self.of[conv.node]
            if conv.groups != 1 or group not in (into, out):
                continue
            inputs = (channels if into is group else into.channels) * conv.weight[0, 0].numel()
            outputs = channels if out is group else out.channels
            total += table.cost(_pixels(conv.node), inputs, outputs)
        return total

    def apply(self) -> None:
        """Write the chosen numbers of channels into the weights."""
        moved: dict[fx.Node, fx.Node] = {}
        for conv in self.convs:
            into, out = self.of[conv.input], self.of[conv.node]
            sizes = (out.channels, 1 if conv.is_depthwise else into.channels)
            if conv.groups != 1 and not conv.is_depthwise:
                continue
            if sizes == tuple(conv.weight.shape[:2]):
                continue
            source = moved.get(conv.input, conv.input)
            new = conv.rewritten(_padded(conv.weight, sizes), _padded(conv.bias, sizes[:1]), source=source)
            moved[conv.node] = new


def _padded(tensor: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """`tensor` in the first corner of zeros that has `sizes` in front."""
    result = tensor.new_zeros((*sizes, *tensor.shape[len(sizes) :]))
    result[tuple(slice(0, size) for size in tensor.shape)] = tensor
    return result


def _pixels(node: fx.Node) -> int:
    return shape(node)[2] * shape(node)[3]


def split_pixels(module: fx.GraphModule, core: str) -> list[str]:
    """Pointwise convolutions over a number of pixels that wastes most of a tile, cut where the waste begins.

    On 7x7 pixels tiles of six rows compute 54 pixels to get 49. Cut into 6x7, 1x6 and one pixel, for which there is
    a kernel of its own, they compute 49. The parts are slices, with what is element-wise after the convolution done on
    each, and a concatenation.
    """
    table = kernels(core)
    done = []
    for conv in convolutions(module):
        if not conv.is_pointwise or shape(conv.node)[0] != 1:
            continue
        plan = _best_cut(conv, table)
        if plan is None:
            continue
        H, W = shape(conv.node)[2:]
        tail = _elementwise_tail(conv.node)
        _cut(module, conv, tail, plan)
        rows, columns = plan
        done.append(
            f"{conv.name}: {H}x{W} pixels as {rows}x{W}, {H - rows}x{columns}, {H - rows}x{W - columns}"
        )
    return done


def _best_cut(conv: Conv, table: Kernels) -> tuple[int, int] | None:
    """(rows, columns): the first `rows` rows, then the rest up to `columns`, then what is left. None: whole is best."""
    H, W = shape(conv.node)[2:]
    K, N = conv.in_channels, conv.out_channels
    best, found = table.cost(H * W, K, N), None
    if H * W > 256:  # the waste is below one tile in forty
        return None
    for rows in range(H):
        for columns in range(W):
            left = H - rows
            pieces = [size for size in (rows * W, left * columns, left * (W - columns)) if size]
            if len(pieces) < 2:
                continue
            total = sum(table.cost(size, K, N) for size in pieces)
            copied = H * W * (K + N) + (left * W * N if len(pieces) == MAX_PIECES else 0)
            total += copy_cost(copied, 2 * len(pieces) * left) + len(pieces) * copy_cost(0, 0)
            if total < best:
                best, found = total, (rows, columns)
    return found


def _elementwise_tail(node: fx.Node) -> list[fx.Node]:
    """What is element-wise after `node` and nobody else reads, in order: kernels do it as they store."""
    tail: list[fx.Node] = []
    user = sole_user(node)
    while user is not None and user.target in ELEMENTWISE:
        tail.append(user)
        user = sole_user(user)
    return tail


def _cut(module: fx.GraphModule, conv: Conv, tail: list[fx.Node], plan: tuple[int, int]) -> None:
    (rows, columns), (H, W) = plan, shape(conv.node)[2:]
    graph, last = module.graph, (tail or [conv.node])[-1]

    def part(top: int, bottom: int, begin: int, end: int) -> fx.Node:
        value = conv.input
        for axis, low, high, size in ((2, top, bottom, H), (3, begin, end, W)):
            if (low, high) != (0, size):
                value = graph.call_function(aten.slice.Tensor, (value, axis, low, high))
        value = graph.call_function(aten.conv2d.default, (value, *conv.node.args[1:]))
        for step in tail:
            value = graph.call_function(step.target, (value, *step.args[1:]), step.kwargs)  # type: ignore[arg-type]
        return value

    with graph.inserting_before(last):
        below = [part(rows, H, begin, end) for begin, end in ((0, columns), (columns, W)) if begin < end]
        bottom = below[0] if len(below) == 1 else graph.call_function(aten.cat.default, (below, 3))
        whole = bottom
        if rows:
            whole = graph.call_function(aten.cat.default, ([part(0, rows, 0, W), bottom], 2))
    last.replace_all_uses_with(whole)
    for node in reversed([conv.node, *tail]):
        graph.erase_node(node)
