"""The decision for every normalization and learnable scalar: folded into which layer, or kept for which reason.

Changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, fx, nn

from finet_deploy.fuse.barriers import barriers, hooked_between
from finet_deploy.fuse.fold import fold_after, fold_before, fold_partial_sums
from finet_deploy.fuse.graph import CallGraph, data_input, operation
from finet_deploy.fuse.kinds import (
    foldable_modules,
    is_batch_norm,
    is_fbn,
    is_foldable,
    is_host,
    is_scalar,
    is_transposed,
    norm_ranks,
    norm_width,
    qualified_name,
    rest_of,
    terms_of,
)
from finet_deploy.fuse.report import Folded, Kept
from finet_deploy.fuse.transparent import Channels, is_in_place, is_relu, may_pass, step
from finet_deploy.nn.fbn import FBNConv2d, FBNLinear
from finet_deploy.nn.mimicnorm import LearnableScale

__all__ = ["Plan", "make_plan"]


class _Refused(Exception):
    """Carries the reason for which a fold is not done."""


@dataclass
class Plan:
    """hosts: path -> fp64 (weight, bias) that its layer gets. rest: path of a folded normalization -> its successor."""

    hosts: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    rest: dict[str, nn.Module] = field(default_factory=dict)
    folded: dict[str, Folded] = field(default_factory=dict)
    kept: dict[str, Kept] = field(default_factory=dict)


def make_plan(model: nn.Module, graphs: Sequence[CallGraph], unproven: str) -> Plan:
    """Decide on every normalization of `model`, given the call graphs of the parts that could be traced.

    unproven: why there is no graph for the rest of the model.
    """
    return _Planner(model, graphs, unproven).run()


class _Planner:
    def __init__(self, model: nn.Module, graphs: Sequence[CallGraph], unproven: str) -> None:
        self.model, self.graphs, self.unproven = model, graphs, unproven
        self.modules = dict(model.named_modules())
        self.barriers = barriers(model)
        self.touched = set().union(*(graph.touched for graph in graphs)) if graphs else set()
        self.plan = Plan()
        self.reasons: dict[str, list[str]] = {}

    def run(self) -> Plan:
        for path, module in self.modules.items():
            if is_fbn(module):
                self._attempt(path, partial(self._fold_fbn, path, module))
        for graph in self.graphs:
            nodes = [node for node in graph.graph.nodes if self._is_foldable(graph, node)]
            for node in nodes:  # in order: a second normalization sees the first one gone
                self._attempt(graph.path_of[node], partial(self._fold_back, graph, node))
            for node in reversed(nodes):
                path = graph.path_of[node]
                if path not in self.plan.folded and is_batch_norm(self.modules[path]):
                    self._attempt(graph.path_of[node], partial(self._fold_forward, graph, node))
        for path, module in foldable_modules(self.model):
            if path not in self.plan.folded:
                reason = "; ".join(dict.fromkeys(self.reasons.get(path, [self._absent(path)])))
                self.plan.kept[path] = Kept(path=path, kind=type(module).__name__, reason=reason)
        order = {path: position for position, path in enumerate(self.modules)}
        self.plan.folded = dict(sorted(self.plan.folded.items(), key=lambda item: order[item[0]]))
        return self.plan

    def _is_foldable(self, graph: CallGraph, node: fx.Node) -> bool:
        path = graph.path_of.get(node)
        return path is not None and is_foldable(self.modules[path])

    def _absent(self, path: str) -> str:
        return self.barriers.get(path) or self.unproven or "the network's forward never calls it"

    def _attempt(self, path: str, fold: Callable[[], None]) -> None:
        try:
            fold()
        except _Refused as refused:
            self.reasons.setdefault(path, []).append(str(refused))

    def _may_change(self, graph: CallGraph | None, path: str) -> None:
        """Refuse when the module at `path` is not exactly once called, owned and read."""
        if path in self.barriers:
            raise _Refused(self.barriers[path] if graph is None else f"'{path}': {self.barriers[path]}")
        if path in self.touched:
            raise _Refused(f"the network reads the tensors of '{path}' directly")
        if graph is not None:
            calls = sum(len(each.calls(path)) for each in self.graphs)
            if calls != 1:
                raise _Refused(f"'{path}' is called {calls} times")

    def _fold_fbn(self, path: str, layer: nn.Module) -> None:
        assert isinstance(layer, FBNConv2d | FBNLinear)
        for part in layer.named_modules(prefix=path):
            self._may_change(None, part[0])
            if part[0] != path and any(graph.calls(part[0]) for graph in self.graphs):
                raise _Refused(f"the network calls '{part[0]}' itself")
        inner = layer.conv if isinstance(layer, FBNConv2d) else layer
        terms = terms_of(layer.bn, norm_width(layer.bn))
        self._set_host(
            path, *fold_partial_sums(inner.weight, inner.bias, *terms, num_groups=layer.num_groups)
        )
        self._done(path, layer, path)

    def _fold_back(self, graph: CallGraph, node: fx.Node) -> None:
        """Fold a normalization or scalar into the layer whose result it works on."""
        path = graph.path_of[node]
        norm = self.modules[path]
        self._may_change(graph, path)
        host, between = self._walk_back(graph, node)
        into = graph.path_of[host]
        self._may_change(graph, into)
        self._no_hooks(graph, [host, *between, node])
        layer = self.modules[into]
        weight, bias = self._current(into)
        groups = int(getattr(layer, "groups", 1))
        width = weight.shape[1] * groups if is_transposed(layer) else weight.shape[0]
        at = self._origin(graph, host)
        for passed in between:
            at = at if is_relu(graph, passed) else self._pass(graph, passed, at)
        if not is_scalar(norm):  # which is the same for every channel, wherever the channels are
            self._arrives(norm, at)
            if width != norm_width(norm):
                raise _Refused(f"it has {norm_width(norm)} channels, '{into}' gives {width}")
        terms = terms_of(norm, width)
        transposed = is_transposed(layer)
        self._set_host(into, *fold_after(weight, bias, *terms, transposed=transposed, groups=groups))
        self._done(path, norm, into, self._names(graph, between))

    def _walk_back(self, graph: CallGraph, node: fx.Node) -> tuple[fx.Node, list[fx.Node]]:
        """The layer that feeds `node`, and the operations between, in order; every value on the way has one reader."""
        between: list[fx.Node] = []
        reader = node
        while True:
            value = data_input(reader)
            if value is None or value.op == "placeholder":
                raise _Refused("its input is not the result of a convolution or linear layer")
            others = [user for user in graph.readers(value) if user is not reader]
            if others:
                raise _Refused(
                    f"the result of {graph.describe(value)} is also read by {graph.describe(others[0])}"
                )
            if value in graph.escaped:
                raise _Refused(f"the result of {graph.describe(value)} is stored in an attribute")
            path = graph.path_of.get(value)
            if path is not None and (is_host(self.modules[path]) or path in self.plan.hosts):
                return value, between
            if is_relu(graph, value) and is_scalar(self.modules[graph.path_of[node]]):
                _refuse_relu(self.modules[graph.path_of[node]])
            elif not may_pass(graph, value, self._gone()):
                raise _Refused(f"its input is the result of {graph.describe(value)}, not of a convolution")
            between.insert(0, value)
            reader = value

    def _fold_forward(self, graph: CallGraph, node: fx.Node) -> None:
        """Fold a normalization into the unpadded layer that alone reads its result."""
        path = graph.path_of[node]
        norm = self.modules[path]
        self._may_change(graph, path)
        if not isinstance(rest_of(norm), nn.Identity):
            raise _Refused("its activation stands before the next layer")
        host, between = self._walk_forward(graph, node)
        into = graph.path_of[host]
        self._may_change(graph, into)
        self._no_hooks(graph, [node, *between, host])
        layer = self.modules[into]
        _refuse_padding(into, layer)
        ranks = norm_ranks(norm)
        rank = graph.ranks.get(node)
        if rank not in ranks:
            raise _Refused("the number of axes of its input is not known: give example_inputs")
        at = Channels(rank, 1)
        for passed in between:
            at = self._pass(graph, passed, at)
        expected = at.rank - 1 if isinstance(layer, nn.Linear) else 1
        if at.axis != expected:
            raise _Refused(f"its channels are not the inputs of '{into}'")
        weight, bias = self._current(into)
        groups = int(getattr(layer, "groups", 1))
        if weight.shape[1] * groups != norm_width(norm):
            raise _Refused(f"it has {norm_width(norm)} channels, '{into}' takes {weight.shape[1] * groups}")
        terms = terms_of(norm, norm_width(norm))
        self._set_host(into, *fold_before(weight, bias, *terms, groups=groups))
        self._done(path, norm, into, self._names(graph, between))

    def _walk_forward(self, graph: CallGraph, node: fx.Node) -> tuple[fx.Node, list[fx.Node]]:
        between: list[fx.Node] = []
        value = node
        while True:
            readers = graph.readers(value)
            if value in graph.escaped or len(readers) != 1:
                raise _Refused(f"the result of {graph.describe(value)} is read {len(readers)} times")
            reader = readers[0]
            path = graph.path_of.get(reader)
            if path is not None and is_host(self.modules[path]) and data_input(reader) is value:
                self._nothing_written(graph, node, reader)
                return reader, between
            if not may_pass(graph, reader, self._gone()):
                raise _Refused(f"its result goes into {graph.describe(reader)}, not into a convolution")
            between.append(reader)
            value = reader

    def _nothing_written(self, graph: CallGraph, first: fx.Node, last: fx.Node) -> None:
        """With the normalization gone its input is handed on as it is: nobody may write into it on the way."""
        node = first.next
        while node is not last:
            if is_in_place(graph, node):
                raise _Refused(
                    f"{graph.describe(node)} works in place before '{graph.path_of[last]}' is called"
                )
            node = node.next

    def _gone(self) -> set[str]:
        return {path for path, rest in self.plan.rest.items() if isinstance(rest, nn.Identity)}

    def _pass(self, graph: CallGraph, node: fx.Node, at: Channels) -> Channels:
        after = step(graph, node, at, self._gone())
        if after is None:
            raise _Refused(f"a scale and shift of channels does not pass through {graph.describe(node)}")
        return after

    def _origin(self, graph: CallGraph, host: fx.Node) -> Channels:
        layer = self.modules[graph.path_of[host]]
        if not isinstance(layer, nn.Linear):
            rank = graph.ranks.get(host)
            expected = 2 if isinstance(layer, FBNLinear) else _conv_rank(layer)
            if rank is not None and rank != expected:
                raise _Refused(f"'{graph.path_of[host]}' is called without a batch axis")
            return Channels(expected, 1)
        rank = graph.ranks.get(host)
        if rank is None:
            raise _Refused(
                f"the number of axes of the result of '{graph.path_of[host]}' is not known: give example_inputs"
            )
        return Channels(rank, rank - 1)

    def _arrives(self, norm: nn.Module, at: Channels) -> None:
        if at.axis != 1 or at.rank not in norm_ranks(norm):
            raise _Refused(
                f"it normalizes another axis than that of the channels: axis {at.axis} of {at.rank}"
            )

    def _no_hooks(self, graph: CallGraph, nodes: list[fx.Node]) -> None:
        hooked = hooked_between(self.modules, [graph.containers(node) for node in nodes])
        if hooked is not None:
            raise _Refused(f"'{hooked}', between it and the layer, has hooks")

    def _current(self, path: str) -> tuple[Tensor, Tensor | None]:
        if path in self.plan.hosts:
            return self.plan.hosts[path]
        layer = self.modules[path]
        return layer._parameters["weight"], layer._parameters["bias"]

    def _set_host(self, path: str, weight: Tensor, bias: Tensor) -> None:
        dtype = next(self.modules[path].parameters()).dtype
        if not all(bool(torch.isfinite(tensor.to(dtype)).all()) for tensor in (weight, bias)):
            raise _Refused(f"the folded weights of '{path}' overflow {str(dtype).removeprefix('torch.')}")
        self.plan.hosts[path] = (weight, bias)

    def _names(self, graph: CallGraph, between: Sequence[fx.Node]) -> list[str]:
        names = [graph.path_of.get(node, operation(node)) for node in between]
        return [name for name in names if name not in self._gone()]

    def _done(self, path: str, module: nn.Module, into: str, between: Sequence[str] = ()) -> None:
        if not is_fbn(module):
            self.plan.rest[path] = rest_of(module)
        self.plan.folded[path] = Folded(
            path=path, kind=type(module).__name__, into=into, between=tuple(between)
        )


def _conv_rank(layer: nn.Module) -> int:
    conv = layer.conv if isinstance(layer, FBNConv2d) else layer
    return len(conv.kernel_size) + 2  # type: ignore[arg-type]


def _refuse_relu(module: nn.Module) -> None:
    """relu(a x) = a relu(x) for a >= 0 alone; nothing that adds passes through a ReLU."""
    if not isinstance(module, LearnableScale):
        raise _Refused("it stands after a ReLU, whose zeros it would shift")
    factor = module.scale.item()
    if not factor >= 0:
        raise _Refused(f"it stands after a ReLU and its factor is negative ({factor:.4g})")


def _refuse_padding(path: str, layer: nn.Module) -> None:
    """The zeros of a padded convolution come after the normalization: its shift would be missing at the border."""
    if isinstance(layer, nn.Linear):
        return
    if is_transposed(layer):
        raise _Refused(f"'{path}' is a transposed convolution: its border sees fewer of its inputs")
    padding, kernel = layer.padding, layer.kernel_size
    if qualified_name(layer).endswith("Conv2dSame") or padding == "same":
        padded = any(size > 1 for size in kernel)  # type: ignore[union-attr]
    else:
        padded = padding != "valid" and any(padding)  # type: ignore[arg-type]
    if padded:
        raise _Refused(f"'{path}', which follows it, is padded: its shift would be missing at the border")
