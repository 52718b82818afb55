"""How many axes a value has, told from the operations alone, without running the network.

Needed where a layer's channel axis depends on it: `Linear` works on the last axis and `BatchNorm1d` on axis 1,
which are the same axis of (N, C) and different ones of (N, L, C).
A convolution is taken to be called with a batch axis, as every network that normalizes over a batch does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from finet_deploy.nn.fbn import FBNConv2d, FBNLinear
from finet_deploy.nn.mimicnorm import LearnableScale, LearnableShift

__all__ = ["infer_rank"]

# fmt: off
_KEEP = {
    # element by element
    "relu", "relu_", "relu6", "relu6_", "hardswish", "hardswish_", "hardsigmoid", "hardsigmoid_", "hardtanh",
    "hardtanh_", "silu", "silu_", "gelu", "sigmoid", "sigmoid_", "tanh", "leaky_relu", "leaky_relu_", "elu", "elu_",
    "mish", "softplus", "clamp", "clamp_", "neg", "exp", "sqrt", "rsqrt", "abs", "pow", "dropout", "contiguous",
    "clone", "detach", "to", "float", "double", "half", "type_as",
    # along axes, none added or removed
    "softmax", "normalize", "layer_norm", "batch_norm", "group_norm", "linear", "pad", "interpolate", "roll", "flip",
    "transpose", "permute", "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d",
}
# fmt: on
_BROADCAST = {
    "add",
    "sub",
    "mul",
    "truediv",
    "div",
    "iadd",
    "imul",
    "isub",
    "add_",
    "mul_",
    "sub_",
    "div_",
    "matmul",
}
_KEEP_MODULES = (
    nn.Identity,
    nn.Linear,
    nn.modules.dropout._DropoutNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.ReLU,
    nn.ReLU6,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Hardtanh,
    nn.SiLU,
    nn.GELU,
    nn.Sigmoid,
    nn.Tanh,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.LayerNorm,
    LearnableScale,
    LearnableShift,
)


def infer_rank(node: fx.Node, module: nn.Module | None, ranks: Mapping[fx.Node, int | None]) -> int | None:
    """Rank of the node's value, given those of the nodes before it; None when it cannot be told."""
    first = node.args[0] if node.args else None
    before = ranks.get(first) if isinstance(first, fx.Node) else None
    if node.op == "call_module" or module is not None:
        return None if module is None else _of_module(module, before)
    if node.op not in ("call_function", "call_method"):
        return None
    target: Any = node.target
    name = target if isinstance(target, str) else getattr(target, "overloadpacket", target).__name__
    return _of_operation(str(name), node, before, ranks)


def _of_module(module: nn.Module, before: int | None) -> int | None:
    if isinstance(module, _ConvNd):
        return len(module.kernel_size) + 2
    if isinstance(module, FBNConv2d | nn.BatchNorm2d):
        return 4
    if isinstance(module, FBNLinear):
        return 2
    if isinstance(module, nn.BatchNorm3d):
        return 5
    if isinstance(module, nn.Flatten):
        return _flattened(before, module.start_dim, module.end_dim)
    if isinstance(module, (_BatchNorm, *_KEEP_MODULES)):
        return before
    return None


def _flattened(before: int | None, start: Any, end: Any) -> int | None:
    if not isinstance(start, int) or not isinstance(end, int):
        return None
    if start >= 0 and end == -1:
        return start + 1  # whatever lies behind `start` becomes one axis
    if before is None:
        return None
    return before - ((end % before) - (start % before))


def _of_operation(
    name: str, node: fx.Node, before: int | None, ranks: Mapping[fx.Node, int | None]
) -> int | None:
    arguments = node.args[1:]
    if name in _KEEP:
        return before
    if name in _BROADCAST:
        known = [ranks.get(arg) if isinstance(arg, fx.Node) else 0 for arg in node.args[:2]]
        return None if None in known else max(rank for rank in known if rank is not None)
    if name == "flatten":
        start = node.kwargs.get("start_dim", arguments[0] if arguments else 0)
        end = node.kwargs.get("end_dim", arguments[1] if len(arguments) > 1 else -1)
        return _flattened(before, start, end)
    if name in ("view", "reshape"):
        sizes = arguments[0] if len(arguments) == 1 and isinstance(arguments[0], list | tuple) else arguments
        # A single argument that is not a number may be a whole shape.
        return len(sizes) if len(sizes) > 1 or (sizes and isinstance(sizes[0], int)) else None
    if name in ("reshape_as", "view_as", "expand_as"):
        return ranks.get(arguments[0]) if arguments and isinstance(arguments[0], fx.Node) else None
    if name == "mean":
        return _reduced(node, before)
    if name == "unsqueeze":
        return None if before is None else before + 1
    return None


def _reduced(node: fx.Node, before: int | None) -> int | None:
    dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    keep = node.kwargs.get("keepdim", node.args[2] if len(node.args) > 2 else False)
    if before is None or dims is None or not isinstance(keep, bool):
        return None
    if keep:
        return before
    return before - (len(dims) if isinstance(dims, list | tuple) else 1)
