"""Operations through which a per-channel affine map passes unchanged: it may stand before or after them.

`op(scale * x + shift) == scale * op(x) + shift`, channel by channel, holds for anything that copies values or takes
averages of them within one channel with weights that sum to one. A padded average is not among them: its zeros
take part in the scale but not in the shift. Nor is a maximum: a negative scale turns it into a minimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from finet_deploy.fuse.graph import CallGraph, argument, operation

__all__ = ["Channels", "is_in_place", "is_relu", "may_pass", "step"]

_SAME = {"contiguous", "clone"}
_AVERAGES = {f"{kind}avg_pool{axes}d": axes for kind in ("", "adaptive_") for axes in (1, 2, 3)}


@dataclass(frozen=True)
class Channels:
    """Where the channels of a value lie: on `axis` of `rank` axes."""

    rank: int
    axis: int


def step(graph: CallGraph, node: fx.Node, at: Channels, folded: set[str]) -> Channels | None:
    """Where the channels are after `node`, or None when an affine map does not pass through it.

    `folded`: paths of normalizations that are Identity by now.
    """
    module = graph.module(node)
    if module is not None:
        return _through_module(module, at, graph.path_of[node] in folded)
    name = operation(node)
    if name in _SAME:
        return at
    if name == "dropout":
        off = argument(node, 2, "training", True) is False or argument(node, 2, "train", True) is False
        return at if off else None
    if name in _AVERAGES:
        return _through_average(node, name, at)
    if name == "flatten":
        return _flatten(at, argument(node, 1, "start_dim", 0), argument(node, 2, "end_dim", -1))
    if name in ("view", "reshape"):
        return _reshape(node, at)
    if name == "mean":
        return _mean(node, at)
    return None


# Exact types: a subclass may do anything.
_KNOWN_TYPES = {
    nn.Identity,
    nn.Flatten,
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
}


def may_pass(graph: CallGraph, node: fx.Node, folded: set[str]) -> bool:
    """Whether `step` may let an affine map through, depending on where the channels lie."""
    module = graph.module(node)
    if module is not None:
        return graph.path_of[node] in folded or type(module) in _KNOWN_TYPES
    return operation(node) in _SAME | _AVERAGES.keys() | {"dropout", "flatten", "view", "reshape", "mean"}


def _through_module(module: nn.Module, at: Channels, is_folded: bool) -> Channels | None:
    if is_folded or isinstance(module, nn.Identity | nn.modules.dropout._DropoutNd):
        return at  # check_fusible has seen to it that dropout is in eval mode
    if isinstance(module, nn.modules.pooling._AdaptiveAvgPoolNd):
        return at if at.axis == 1 and at.rank == _axes(module) + 2 else None
    if isinstance(module, nn.modules.pooling._AvgPoolNd):
        padded = _nonzero(module.padding) and bool(module.count_include_pad)
        divided = getattr(module, "divisor_override", None) is not None
        return at if at.axis == 1 and at.rank == _axes(module) + 2 and not padded and not divided else None
    if isinstance(module, nn.Flatten):
        return _flatten(at, module.start_dim, module.end_dim)
    return None


def _axes(module: nn.Module) -> int:
    return int(type(module).__name__[-2])  # AvgPool2d, AdaptiveAvgPool1d


def _nonzero(value: Any) -> bool:
    return any(value) if isinstance(value, list | tuple) else bool(value)


def _through_average(node: fx.Node, name: str, at: Channels) -> Channels | None:
    if at.axis != 1 or at.rank != _AVERAGES[name] + 2:
        return None
    if name.startswith("adaptive"):
        return at
    # avg_pool(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    padded = _nonzero(argument(node, 3, "padding", 0)) and argument(node, 5, "count_include_pad", True)
    divided = argument(node, 6, "divisor_override", None) is not None
    return None if padded or divided else at


def _flatten(at: Channels, start: Any, end: Any) -> Channels | None:
    if not isinstance(start, int) or not isinstance(end, int):
        return None
    start, end = start % at.rank, end % at.rank
    if at.axis < start:
        return Channels(at.rank - (end - start), at.axis)
    if at.axis > end:
        return Channels(at.rank - (end - start), at.axis - (end - start))
    if at.axis == start:
        # Channels and positions share an axis now. The caller compares its width with the number of channels:
        # they can only be equal when there was a single position.
        return Channels(at.rank - (end - start), at.axis)
    return None


def _reshape(node: fx.Node, at: Channels) -> Channels | None:
    """`x.view(x.size(0), -1)`: a flatten of everything behind the batch axis. No other view is understood."""
    sizes = node.args[1:]
    if len(sizes) == 1 and isinstance(sizes[0], list | tuple):
        sizes = tuple(sizes[0])
    if len(sizes) != 2 or sizes[1] != -1 or at.axis != 1:
        return None
    return Channels(2, 1) if _is_batch_size(sizes[0], node.args[0]) else None


def _is_batch_size(size: Any, of: Any) -> bool:
    if not isinstance(size, fx.Node):
        return False
    if operation(size) in ("size", "sym_size") and size.args == (of, 0):
        return True
    if operation(size) != "getitem" or size.args[1] != 0 or not isinstance(size.args[0], fx.Node):
        return False
    shape = size.args[0]
    return shape.args in ((of, "shape"), (of,)) and operation(shape) in ("getattr", "size")


def _mean(node: fx.Node, at: Channels) -> Channels | None:
    dims, keep = argument(node, 1, "dim", None), argument(node, 2, "keepdim", False)
    dims = (dims,) if isinstance(dims, int) else dims
    if (
        not isinstance(dims, list | tuple)
        or not all(isinstance(d, int) for d in dims)
        or node.kwargs.get("dtype")
    ):
        return None
    averaged = {d % at.rank for d in dims}
    if averaged & {0, at.axis}:
        return None
    if keep is True:
        return at
    return Channels(at.rank - len(averaged), at.axis - sum(d < at.axis for d in averaged))


def is_relu(graph: CallGraph, node: fx.Node) -> bool:
    """Whether a node is a ReLU, with which a factor that is not negative changes places: relu(a x) = a relu(x)."""
    module = graph.module(node)
    return type(module) is nn.ReLU if module is not None else operation(node) in ("relu", "relu_")


def is_in_place(graph: CallGraph, node: fx.Node) -> bool:
    """Whether a node writes into one of its inputs."""
    module = graph.module(node)
    if module is not None:
        return bool(getattr(module, "inplace", False)) and not isinstance(
            module, nn.modules.dropout._DropoutNd
        )
    name = operation(node)
    if node.op == "call_function" and name in {
        "iadd",
        "isub",
        "imul",
        "itruediv",
        "setitem",
        "ipow",
        "iand",
        "ior",
    }:
        return True
    if name.endswith("_") and not name.endswith("__"):
        return True
    return any(arg is True for arg in (*node.args[1:], node.kwargs.get("inplace"))) and name in {
        "relu", "relu6", "hardswish", "hardsigmoid", "hardtanh", "silu", "elu", "selu", "celu", "leaky_relu", "mish",
        "threshold", "rrelu",
    }  # fmt: skip
