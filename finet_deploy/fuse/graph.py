"""The call graph that proves that a fold is legal: which module is called on what, and who reads the result.

It wraps a `torch.fx.Graph`, from symbolic tracing or from `torch.export`, and answers the same questions for both.
Nothing is ever changed through the graph: it is evidence, the folds happen in the module tree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from finet_deploy.fuse.ranks import infer_rank

__all__ = ["CallGraph", "argument", "data_input", "join", "operation"]

# Readers of a value's shape or type alone: they see nothing of a rescaled channel.
_SHAPE_ONLY = {
    *("size", "dim", "ndimension", "numel", "stride", "is_contiguous", "data_ptr"),
    *("sym_size", "_assert_tensor_metadata"),
}
_SHAPE_ATTRIBUTES = {"shape", "ndim", "dtype", "device", "is_cuda", "layout", "requires_grad"}
_SHAPE_OF_SECOND = {"reshape_as", "view_as", "expand_as", "type_as"}


@dataclass
class CallGraph:
    """One traced (sub-)network.

    path_of: the dotted path of the module that a node calls, for module calls alone.
    touched: paths of modules whose tensors the network reads without calling the module.
    escaped: nodes whose value is stored in an attribute while the network runs.
    ranks: number of axes of a node's value, None where it cannot be told.
    prefix: path of the traced sub-network, empty for the whole.
    is_export: from torch.export, whose operations are aten's.
    """

    graph: fx.Graph
    modules: dict[str, nn.Module]
    path_of: dict[fx.Node, str]
    touched: set[str] = field(default_factory=set)
    escaped: set[fx.Node] = field(default_factory=set)
    ranks: dict[fx.Node, int | None] = field(default_factory=dict)
    prefix: str = ""
    is_export: bool = False

    def __post_init__(self) -> None:
        for node in self.graph.nodes:
            if self.ranks.get(node) is None:
                self.ranks[node] = infer_rank(node, self.module(node), self.ranks)

    def module(self, node: fx.Node) -> nn.Module | None:
        path = self.path_of.get(node)
        return None if path is None else self.modules[path]

    def calls(self, path: str) -> list[fx.Node]:
        """Every call of the module at `path`."""
        return [node for node, called in self.path_of.items() if called == path]

    def readers(self, node: fx.Node) -> list[fx.Node]:
        """The nodes that read the node's values (not just its shape), in order."""
        return [user for user in node.users if not _reads_shape_only(user, node)]

    def describe(self, node: fx.Node) -> str:
        """How a report names a node."""
        path = self.path_of.get(node)
        if path is not None:
            return f"'{path}' ({type(self.modules[path]).__name__})"
        if node.op == "placeholder":
            return "the input"
        if node.op == "output":
            return "the network's result"
        return f"the operation '{operation(node)}'"

    def containers(self, node: fx.Node) -> set[str]:
        """Paths of the modules inside whose forward the node lies, the called module itself included."""
        stack = node.meta.get("nn_module_stack") or {}
        return {join(self.prefix, str(entry[0])) for entry in stack.values()} | {self.prefix}


def join(prefix: str, path: str) -> str:
    """Dotted path of `path` below `prefix`; either may be empty."""
    return ".".join(part for part in (prefix, path) if part)


def operation(node: fx.Node) -> str:
    """The plain name of what a node does: `flatten` for Tensor.flatten, torch.flatten and aten.flatten alike."""
    target: Any = node.target
    if node.op in ("call_method", "placeholder", "output", "get_attr", "call_module"):
        return str(target)
    if hasattr(target, "overloadpacket"):
        return str(target.overloadpacket.__name__)
    return str(getattr(target, "__name__", target))


def argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    """Argument of a call by position or keyword."""
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, default)


def data_input(node: fx.Node) -> fx.Node | None:
    """The tensor that a one-input operation or module works on."""
    first = argument(node, 0, "input", None)
    return first if isinstance(first, fx.Node) else None


def _reads_shape_only(user: fx.Node, node: fx.Node) -> bool:
    name = operation(user)
    if user.op == "call_function" and name == "getattr":
        return len(user.args) > 1 and user.args[1] in _SHAPE_ATTRIBUTES
    if name in _SHAPE_OF_SECOND:
        return bool(user.args) and user.args[0] is not node
    return user.op in ("call_function", "call_method") and name in _SHAPE_ONLY
