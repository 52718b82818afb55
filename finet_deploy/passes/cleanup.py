"""Passes that take out what does nothing, and spell the rest in one way: the other passes rely on them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from finet_deploy.passes.ir import (
    argument,
    as_conv,
    constant,
    is_call,
    layer_name,
    replace,
    set_constant,
    shape,
    sole_user,
)

__all__ = ["fold_affine", "fold_constants", "pooling", "remove_idle", "splits_to_slices"]

aten = torch.ops.aten

_RESHAPES = (
    *(aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints),
    *(aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default, aten.unsqueeze.default),
)
_COPIES = (aten.clone.default, aten.contiguous.default, aten.alias.default, aten.detach.default)
_AFFINE: dict[Any, Callable[..., tuple[Tensor, Tensor]]] = {
    aten.mul.Tensor: lambda w, b, v: (w * v, b * v),
    aten.div.Tensor: lambda w, b, v: (w / v, b / v),
    aten.add.Tensor: lambda w, b, v: (w, b + v),
    aten.sub.Tensor: lambda w, b, v: (w, b - v),
}


def remove_idle(module: fx.GraphModule) -> list[str]:
    """Dropout in eval mode, copies, reshapes to the same shape or after another, whole slices, a ReLU after a ReLU."""
    done = []
    for node in list(module.graph.nodes):
        source = _idle(node)
        if source is not None:
            done.append(f"{node.name}: {_reason(node)}")
            node.replace_all_uses_with(source)
            module.graph.erase_node(node)
        elif is_call(node, *_RESHAPES) and is_call(node.args[0], *_RESHAPES):
            with module.graph.inserting_before(node):
                merged = module.graph.call_function(
                    aten.reshape.default, (node.args[0].args[0], list(shape(node)))
                )
            merged.meta = dict(node.meta)
            replace(node, merged)
            module.graph.erase_node(node)
            done.append(f"{merged.name}: two reshapes in one")
    return done


def _idle(node: fx.Node) -> fx.Node | None:
    """The node that `node` only repeats."""
    if node.op != "call_function" or not node.args or not isinstance(node.args[0], fx.Node):
        return None
    source = node.args[0]
    same = bool(shape(node)) and shape(node) == shape(source)
    if is_call(node, aten.dropout.default, aten.feature_dropout.default):
        return source if node.args[2] is False else None
    if is_call(node, *_COPIES):
        value = source.meta.get("val")
        return source if isinstance(value, Tensor) and value.is_contiguous() else None
    if is_call(node, *_RESHAPES, aten.slice.Tensor, aten.expand.default):
        return source if same else None
    if is_call(node, aten.relu.default) and is_call(source, aten.relu.default, aten.relu6.default):
        return source
    return None


def _reason(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target)).partition(".")[0] + " does nothing"


def fold_constants(module: fx.GraphModule) -> list[str]:
    """What depends on constants alone is computed now, in float64, instead of at every inference."""
    done = []
    for node in list(module.graph.nodes):
        inputs = node.all_input_nodes
        if node.op != "call_function" or not inputs:
            continue
        values = {item: constant(module, item) for item in inputs}
        if any(value is None for value in values.values()):
            continue
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        target: Any = node.target
        result = target(*args, **kwargs)
        if not isinstance(result, Tensor):
            continue
        with module.graph.inserting_before(node):
            new = set_constant(module, f"folded.{node.name}", result)
        node.replace_all_uses_with(new)
        module.graph.erase_node(node)
        done.append(f"{node.name}: computed at export")
    return done


def fold_affine(module: fx.GraphModule) -> list[str]:
    """A constant factor or summand (one number, or one a channel) right after a convolution goes into its weights."""
    done = []
    for node in list(module.graph.nodes):
        if not is_call(node, *_AFFINE) or node.kwargs or not isinstance(node.args[0], fx.Node):
            continue
        conv = as_conv(module, node.args[0])
        if conv is None or sole_user(conv.node) != node:
            continue
        value = _per_channel(module, node.args[1], conv.weight)
        if value is None:
            continue
        rule = _AFFINE[node.target]
        flat, bias = rule(conv.weight.flatten(1), conv.bias[:, None], value[:, None])
        name = conv.name
        new = conv.rewritten(flat.reshape(conv.weight.shape), bias[:, 0])
        node.replace_all_uses_with(new)
        module.graph.erase_node(node)
        done.append(f"{name}: took in {_short(node)}")
    return done


def _short(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target)).partition(".")[0]


def _per_channel(module: fx.GraphModule, value: Any, weight: Tensor) -> Tensor | None:
    """A number, or a constant of shape (C, 1, 1), (1, C, 1, 1) or with one element, as (C,)."""
    channels = weight.shape[0]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return weight.new_full((channels,), float(value))
    tensor = constant(module, value)
    if tensor is None or tensor.ndim > 4:  # a fifth axis would give the result five
        return None
    if tensor.numel() == 1:
        return weight.new_full((channels,), float(tensor))
    if tensor.ndim in (3, 4) and tensor.shape[-3:] == (channels, 1, 1) and tensor.numel() == channels:
        return tensor.reshape(channels).to(weight.dtype)
    return None


def pooling(module: fx.GraphModule) -> list[str]:
    """Global average pooling in the one spelling that delegates take whole: a mean that keeps its axes."""
    done = []
    for node in list(module.graph.nodes):
        source = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        if source is None or node.kwargs or len(shape(source)) != 4:  # kwargs: a mean in another precision
            continue
        if not _is_global_pool(node, shape(source)):
            continue
        with module.graph.inserting_before(node):
            new = module.graph.call_function(aten.mean.dim, (source, [2, 3], True))
            new.meta = dict(node.meta)
            if len(shape(node)) == 2:
                result = module.graph.call_function(aten.reshape.default, (new, list(shape(node))))
                result.meta = dict(node.meta)
            else:
                result = new
        node.replace_all_uses_with(result)
        module.graph.erase_node(node)
        done.append(f"{layer_name(node)}: mean over H and W with its axes kept")
    return done


def _is_global_pool(node: fx.Node, source: tuple[int, ...]) -> bool:
    if is_call(node, aten.mean.dim):
        keeps = len(node.args) > 2 and bool(node.args[2])
        axes = node.args[1] if len(node.args) > 1 else None
        return isinstance(axes, (list, tuple)) and sorted(a % 4 for a in axes) == [2, 3] and not keeps
    if is_call(node, aten.adaptive_avg_pool2d.default):
        return shape(node)[2:] == (1, 1)
    if is_call(node, aten.avg_pool2d.default):
        args = (*node.args, *((None,) * (7 - len(node.args))))
        window = args[1] if isinstance(args[1], (list, tuple)) else [args[1]]
        padded = args[3] if isinstance(args[3], (list, tuple)) else [args[3] or 0]
        whole = (window[0], window[-1]) == source[2:]
        return whole and not any(padded) and args[6] in (None, source[2] * source[3])
    return False


def splits_to_slices(module: fx.GraphModule) -> list[str]:
    """`split` and `chunk` as one slice a part: delegates take slices, and break at splits."""
    done = []
    for node in list(module.graph.nodes):
        if not is_call(node, aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default):
            continue
        axis = int(node.args[2]) if len(node.args) > 2 else 0
        starts, at = [], 0
        for part in node.meta["val"]:
            starts.append((at, at + int(part.shape[axis])))
            at += int(part.shape[axis])
        if not all(is_call(user, operator.getitem) for user in node.users):
            continue
        for user in list(node.users):
            start, stop = starts[argument(user, 1)]
            with module.graph.inserting_before(user):
                new = module.graph.call_function(aten.slice.Tensor, (node.args[0], axis, start, stop))
            new.meta = dict(user.meta)
            user.replace_all_uses_with(new)
            module.graph.erase_node(user)
        done.append(f"{layer_name(node)}: {len(starts)} slices")
    return done
