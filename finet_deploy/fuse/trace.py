"""Making call graphs: `torch.fx` symbolic tracing first, `torch.export` where that fails and inputs are at hand.

Tracing runs the network's own Python code, so it works on a throw-away structural copy that shares all tensors with
the model: whatever the code stores in attributes on the way is dropped with the copy.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from finet_deploy.errors import UsageError
from finet_deploy.fuse.graph import CallGraph, join, operation
from finet_deploy.fuse.kinds import TREE, is_batch_norm, is_fbn, is_foldable, is_host, is_scalar

__all__ = [
    "check_runs",
    "export_graph",
    "independent_copy",
    "same_outputs",
    "structural_copy",
    "symbolic_graph",
    "trace_text",
]


class _Untraceable(Exception):
    """The reason why a graph could not be had, for the report."""


def structural_copy(model: nn.Module) -> nn.Module:
    """A deep copy that shares every parameter with the model. Buffers are its own: networks write into them."""
    return _copy(model, {id(parameter): parameter for parameter in model.parameters()})


def independent_copy(model: nn.Module) -> nn.Module:
    """A deep copy, also where a module holds a computed tensor (old-style pruning) and `deepcopy` gives up."""
    return _copy(model, {})


def _copy(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    memo.update({id(tensor): tensor.detach().clone() for tensor in _computed(model)})
    return copy.deepcopy(model, memo)


def _computed(model: nn.Module) -> list[Tensor]:
    attributes = (value for module in model.modules() for value in vars(module).values())
    return [value for value in attributes if isinstance(value, Tensor) and not value.is_leaf]


class _Tracer(fx.Tracer):
    """Stops at every layer that folds are about, and notes tensors that are read past their module."""

    def __init__(self, leaf_paths: frozenset[str] | None = None) -> None:
        super().__init__()
        self.leaf_paths = leaf_paths
        self.read: set[int] = set()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if self.leaf_paths is not None and module_qualified_name in self.leaf_paths:
            return True
        if is_fbn(m) or is_foldable(m) or is_host(m):
            return True
        return bool(super().is_leaf_module(m, module_qualified_name)) and not any(
            is_fbn(child) or is_foldable(child) for child in m.modules()
        )

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if isinstance(attr_val, Tensor):
            self.read.add(id(attr_val))
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def symbolic_graph(
    model: nn.Module, prefix: str, inputs: tuple[Tensor, ...] | None
) -> tuple[CallGraph | None, str]:
    """Trace `model` symbolically; paths in the result begin with `prefix`. (None, reason) when that fails.

    Arguments with defaults keep them: the graph is that of `model(*inputs)`. With inputs, the graph is run and
    held against the network itself, which catches code that behaves otherwise under tracing.
    """
    copied = structural_copy(model)
    tracer = _Tracer()
    try:
        graph = _run(tracer, copied, inputs)
    except Exception as error:  # noqa: BLE001 - whatever the network's own code raises means: no graph
        return None, f"symbolic tracing fails: {_one_line(error)}"
    modules = {join(prefix, path): module for path, module in copied.named_modules()}
    path_of = {node: join(prefix, str(node.target)) for node in graph.nodes if node.op == "call_module"}
    call_graph = CallGraph(graph, modules, path_of, *_leaks(copied, tracer, graph, prefix), {}, prefix)
    if inputs is not None:
        try:
            call_graph.ranks = _observed_ranks(copied, graph, inputs)
        except _Untraceable as error:
            return None, str(error)
        call_graph.__post_init__()
    return call_graph, ""


def _run(tracer: _Tracer, model: nn.Module, inputs: tuple[Tensor, ...] | None) -> fx.Graph:
    parameters = list(inspect.signature(model.forward).parameters.values())
    given = len(inputs) if inputs is not None else 0
    defaults = {
        parameter.name: parameter.default
        for position, parameter in enumerate(parameters)
        if parameter.default is not parameter.empty and position >= given
    }
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return tracer.trace(model, concrete_args=defaults or None)


def trace_text(model: nn.Module, leaf_paths: Iterable[str], inputs: tuple[Tensor, ...] | None) -> str:
    """The trace of `model` as text, with the modules at `leaf_paths` as single calls; equal for equal networks."""
    try:
        graph = _run(_Tracer(frozenset(leaf_paths)), structural_copy(model), inputs)
    except Exception as error:  # noqa: BLE001 - as above; the text differs from any graph's
        return f"fails: {_one_line(error)}"
    return "\n".join(f"{node.op} {node.name} {node.target} {node.args} {node.kwargs}" for node in graph.nodes)


def _leaks(model: nn.Module, tracer: _Tracer, graph: fx.Graph, prefix: str) -> tuple[set[str], set[fx.Node]]:
    """Modules whose tensors were read directly, and nodes whose value the network has stored in an attribute."""
    read = set(tracer.read)
    for node in graph.nodes:
        if node.op == "get_attr":
            value = _resolve(model, str(node.target))
            read.add(id(value))
    touched: set[str] = set()
    escaped: set[fx.Node] = set()
    for path, module in model.named_modules(remove_duplicate=False):
        tensors = [*module._parameters.values(), *module._buffers.values()]
        if any(id(tensor) in read for tensor in tensors if tensor is not None):
            touched.add(join(prefix, path))
        stored = {key: value for key, value in vars(module).items() if key not in TREE}
        escaped.update(leaf.node for leaf in pytree.tree_leaves(stored) if isinstance(leaf, fx.Proxy))
    return touched, escaped


def _resolve(model: nn.Module, target: str) -> Any:
    value: Any = model
    for part in target.split("."):
        value = getattr(value, part)
    return value


class _RankRecorder(fx.Interpreter):
    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(model, graph=graph)
        self.seen: dict[fx.Node, int | None] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.seen[n] = result.dim() if isinstance(result, Tensor) else None
        return result


def _observed_ranks(
    model: nn.Module, graph: fx.Graph, inputs: tuple[Tensor, ...]
) -> dict[fx.Node, int | None]:
    recorder = _RankRecorder(model, graph)
    with torch.no_grad():
        try:
            expected = model(*_clones(inputs))
            found = recorder.run(*_clones(inputs))
        except Exception as error:
            raise _Untraceable(
                f"the network does not run on the example inputs: {_one_line(error)}"
            ) from error
    pairs = list(zip(pytree.tree_leaves(expected), pytree.tree_leaves(found)))
    same = all(
        not isinstance(a, Tensor)
        or (a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True))
        for a, b in pairs
    )
    if not same:
        raise _Untraceable("the symbolic trace computes something else than the network")
    return recorder.seen


def check_runs(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Raise UsageError unless `model(*inputs)` runs."""
    try:
        with torch.no_grad():
            structural_copy(model)(*_clones(inputs))
    except Exception as error:
        raise UsageError(
            f"the model does not run on example_inputs: {_one_line(error)}",
            do="give inputs of the shape, dtype and device that it takes",
        ) from error


def _clones(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A network may write into its input."""
    return tuple(value.clone() if isinstance(value, Tensor) else value for value in inputs)


def same_outputs(model: nn.Module, changed: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether two networks agree on `inputs`, roughly: to the square root of their dtype's precision."""
    try:
        with torch.no_grad():
            results = [
                pytree.tree_leaves(structural_copy(network)(*_clones(inputs))) for network in (model, changed)
            ]
    except Exception:  # noqa: BLE001 - the network's own code
        return False
    pairs = [(a, b) for a, b in zip(*results) if isinstance(a, Tensor) and a.is_floating_point()]
    return all(float((a - b).norm()) <= torch.finfo(a.dtype).eps ** 0.5 * float(a.norm()) for a, b in pairs)


def export_graph(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[CallGraph | None, str]:
    """The call graph from `torch.export` (non-strict), where modules are recognized by the tensors they own."""
    copied = structural_copy(model)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(copied, _clones(inputs), strict=False)
    except Exception as error:  # noqa: BLE001 - whatever the network's own code raises means: no graph
        return None, f"torch.export fails: {_one_line(error)}"
    signature = program.graph_signature
    owned = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    modules = dict(copied.named_modules())
    path_of: dict[fx.Node, str] = {}
    touched: set[str] = set()
    for node in program.graph.nodes:
        if node.op != "placeholder" or node.name not in owned:
            continue
        path = owned[node.name].rpartition(".")[0]
        for user in node.users:
            if _is_call_of(user, path, modules[path]):
                path_of[user] = path
            else:
                touched.add(path)
    ranks = {node: _fake_rank(node) for node in program.graph.nodes}
    return CallGraph(program.graph, modules, path_of, touched, set(), ranks, is_export=True), ""


_EXPORTED_CALLS = (
    "linear",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
)


def _is_call_of(node: fx.Node, path: str, module: nn.Module) -> bool:
    """Whether an exported operation is the module's own forward at work, not other code that reads its tensors."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack or stack[-1][0] != path:
        return False
    name = operation(node).removesuffix("_input")
    if is_batch_norm(module):
        return name in ("batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit_no_training")
    if is_scalar(module):
        return name in ("mul", "add") and node.args[0] in node.all_input_nodes
    return is_host(module) and (name in _EXPORTED_CALLS or name.split(".")[0] in _EXPORTED_CALLS)


def _fake_rank(node: fx.Node) -> int | None:
    value = node.meta.get("val")
    return value.dim() if isinstance(value, Tensor) else None


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
