"""Channel shuffles without moving a channel: the order is put into the weights that read it.

ShuffleNet's unit concatenates two halves, shuffles them (view, transpose, view) and splits the result again. Delegates
run the shuffle as transposes of five-dimensional tensors, and break at the split. But a convolution does not mind in
which order its input channels come, if its weights come in the same one. So channels are followed symbolically: each
is (tensor, channel), through slices, concatenations and shuffles; where a convolution reads a selection of them, its
input is the few contiguous runs that the selection consists of, and its weights are permuted to match.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import fx

from finet_deploy.passes.ir import ELEMENTWISE, Conv, argument, as_conv, is_call, layer_name, shape

__all__ = ["channel_shuffle"]

aten = torch.ops.aten

Channel = tuple[fx.Node, int]
_VIEWS = (aten.view.default, aten.reshape.default, aten._unsafe_view.default)
_SAME_ORDER = (aten.max_pool2d.default, aten.avg_pool2d.default, aten.mean.dim)


def channel_shuffle(module: fx.GraphModule) -> list[str]:
    """Put every shuffle that only convolutions read, through what leaves channels apart, into their weights."""
    shuffles = {node: source for node in module.graph.nodes if (source := _shuffled(node)) is not None}
    if not shuffles:
        return []
    order = {node: index for index, node in enumerate(module.graph.nodes)}
    moved = _Moved(module, shuffles, order)
    if not moved.possible():
        return []
    moved.apply()
    return [f"{layer_name(node)}: {shape(source)[1]} channels" for node, source in shuffles.items()]


def _shuffled(node: fx.Node) -> fx.Node | None:
    """The tensor that `node` holds shuffled: view to (N, G, C/G, H, W), axes 1 and 2 swapped, view back."""
    steps = _steps(node)
    if len(steps) != 2 or len(shape(node)) != 4:
        return None
    swap, outer = steps
    if is_call(swap, aten.transpose.int):
        swapped = sorted(swap.args[1:]) == [1, 2]  # type: ignore[type-var]
    else:
        swapped = list(argument(swap, 1)) == [0, 2, 1, 3, 4]
    source = argument(outer)
    N, C, H, W = shape(node)
    axes = shape(outer)
    same = shape(source) == shape(node) and len(axes) == 5 and axes == (N, axes[1], C // axes[1], H, W)
    return source if swapped and same else None


def _steps(node: fx.Node) -> list[fx.Node]:
    """The swap of axes and the view before it that `node`, a view, ends; empty where it does not."""
    if not is_call(node, *_VIEWS):
        return []
    swap = argument(node)
    if is_call(swap, aten.clone.default, aten.contiguous.default):
        swap = argument(swap)
    if not is_call(swap, aten.transpose.int, aten.permute.default) or not is_call(argument(swap), *_VIEWS):
        return []
    return [swap, argument(swap)]


class _Moved:
    """channels: what each tensor of the network that is or passes on channels consists of, in its own order."""

    def __init__(
        self, module: fx.GraphModule, shuffles: dict[fx.Node, fx.Node], order: dict[fx.Node, int]
    ) -> None:
        self.module, self.shuffles, self.order = module, shuffles, order
        self.channels: dict[fx.Node, list[Channel]] = {}
        self.virtual: set[fx.Node] = set()  # selections of other tensors' channels: nobody computes these
        self.built: dict[tuple[Channel, ...], fx.Node] = {}
        for node in module.graph.nodes:
            self._follow(node)

    def _follow(self, node: fx.Node) -> None:
        sizes = shape(node)
        if node in self.shuffles:
            source, groups = self.channels[self.shuffles[node]], shape(_steps(node)[1])[1]
            per = len(source) // groups
            self.channels[node] = [source[g * per + i] for i in range(per) for g in range(groups)]
            self.virtual.add(node)
        elif is_call(node, aten.cat.default) and _axis(node, 1) == 1 and len(sizes) == 4:
            self.channels[node] = [c for part in argument(node) for c in self.channels[part]]
            self.virtual.add(node)
        elif (
            is_call(node, aten.slice.Tensor)
            and _axis(node, 1) == 1
            and len(node.args) == 4
            and len(sizes) == 4
        ):
            source, start = self.channels[argument(node)], int(argument(node, 2) or 0)
            start += len(source) if start < 0 else 0
            self.channels[node] = source[start : start + sizes[1]]
            self.virtual.add(node)
        elif len(sizes) == 4:
            self.channels[node] = [(node, i) for i in range(sizes[1])]

    def _tainted(self) -> set[fx.Node]:
        """Virtual tensors in which a shuffle is, and what keeps channels in the order in which it reads them."""
        tainted: set[fx.Node] = set()
        for node in self.module.graph.nodes:
            reads = any(item in tainted for item in node.all_input_nodes)
            conv = as_conv(self.module, node)
            keeps = (conv is not None and conv.is_depthwise) or node.target in ELEMENTWISE
            keeps = keeps or (node.target in _SAME_ORDER and shape(node)[:2] == shape(node.args[0])[:2])
            if node in self.shuffles or (reads and (node in self.virtual or keeps)):
                tainted.add(node)
        return tainted

    def possible(self) -> bool:
        """Whether only convolutions read what is shuffled, possibly through what keeps channels apart."""
        self.tainted = self._tainted()
        inside = {item for node in self.shuffles for item in self._inside(node)}
        for node in self.tainted:
            for user in node.users:
                conv = as_conv(self.module, user)
                reads = conv is not None and conv.groups == 1
                if not (reads or user in self.tainted or user in inside):
                    return False
        return True

    def _inside(self, node: fx.Node) -> list[fx.Node]:
        steps, inner = [], argument(node)
        while inner is not self.shuffles[node]:
            steps.append(inner)
            inner = argument(inner)
        return steps

    def apply(self) -> None:
        """Give each reader its channels in runs. What keeps channels apart is then itself in another order."""
        renamed: dict[Channel, Channel] = {}
        for node in list(self.module.graph.nodes):
            source = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
            if source is None or source not in self.tainted or node in self.virtual or node not in self.order:
                continue
            conv = as_conv(self.module, node)
            if conv is None and node not in self.tainted:
                continue  # a step of a shuffle: nobody reads it any more
            wanted = [renamed.get(channel, channel) for channel in self.channels[source]]
            runs = self._runs(wanted)
            position = {channel: i for i, channel in enumerate(c for run in runs for c in run)}
            tensor = self._tensor(runs, node)
            at = [position[channel] for channel in wanted]
            if conv is not None and conv.groups == 1:
                self._read(conv, tensor, at)
                continue
            kept = self._keep(conv, node, tensor, at)
            for i, channel in enumerate(self.channels[node]):
                renamed[channel] = (kept, at[i])

    def _runs(self, channels: list[Channel]) -> list[list[Channel]]:
        """The same channels, by tensor and in its order, as runs without a gap."""
        runs: list[list[Channel]] = []
        for node, index in sorted(channels, key=lambda c: (self.order[c[0]], c[1])):
            if runs and runs[-1][-1] == (node, index - 1):
                runs[-1].append((node, index))
            else:
                runs.append([(node, index)])
        return runs

    def _tensor(self, runs: list[list[Channel]], reader: fx.Node) -> fx.Node:
        """The node that holds these runs one after another; slices and concatenations are shared between readers."""
        key = tuple(channel for run in runs for channel in run)
        if key in self.built:
            return self.built[key]
        last = max((run[0][0] for run in runs), key=lambda node: self.order[node])
        graph, parts = self.module.graph, []
        with graph.inserting_after(last):
            anchor = graph.call_function(aten.alias.default, (last,))  # marks the place; taken out below
        with graph.inserting_before(anchor):
            for run in runs:
                node, start = run[0]
                whole = len(run) == shape(node)[1]
                cut = (node, 1, start, start + len(run))
                parts.append(node if whole else graph.call_function(aten.slice.Tensor, cut))
            tensor = parts[0] if len(parts) == 1 else graph.call_function(aten.cat.default, (parts, 1))
        graph.erase_node(anchor)
        self.built[key] = tensor
        return tensor

    def _read(self, conv: Conv, tensor: fx.Node, at: list[int]) -> None:
        weight = torch.empty_like(conv.weight)
        weight[:, at] = conv.weight
        new = conv.rewritten(weight, conv.bias, source=tensor)
        self._rename(conv.node, new)

    def _keep(self, conv: Conv | None, node: fx.Node, tensor: fx.Node, at: list[int]) -> fx.Node:
        """A depthwise convolution or an element-wise step, on channels in the order of `tensor`."""
        if conv is None:
            node.args = (tensor, *node.args[1:])
            return node
        weight, bias = torch.empty_like(conv.weight), torch.empty_like(conv.bias)
        weight[at], bias[at] = conv.weight, conv.bias
        new = conv.rewritten(weight, bias, source=tensor)
        self._rename(conv.node, new)
        return new

    def _rename(self, old: fx.Node, new: fx.Node) -> None:
        new.meta["val"] = old.meta["val"]
        self.order[new] = self.order[old]
        mine = defaultdict(
            list, {n: [(new if c[0] is old else c[0], c[1]) for c in cs] for n, cs in self.channels.items()}
        )
        self.channels = {**mine, new: mine[old]}
        for group in (self.tainted, self.virtual):
            if old in group:
                group.add(new)


def _axis(node: fx.Node, position: int) -> int:
    return int(argument(node, position, 0)) % 4
