"""Passes on Squeeze-Excite gates: one spelling that delegates take whole, and hard sigmoids that cost nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from finet_deploy.passes.cleanup import _RESHAPES
from finet_deploy.passes.ir import (
    ELEMENTWISE,
    argument,
    as_conv,
    constant,
    is_call,
    layer_name,
    set_constant,
    shape,
    sole_user,
)

__all__ = ["gates_as_convolutions", "hard_sigmoid"]

aten = torch.ops.aten


def hard_sigmoid(module: fx.GraphModule) -> list[str]:
    """hardsigmoid(y) = clamp(y / 6 + 1/2, 0, 1): the slope goes into the convolution before it.

    What is left is a clamp, which XNNPACK's kernels do as they store. Without a convolution before it that only it
    reads, the slope stays as one multiplication and one addition.
    """
    done = []
    for node in list(module.graph.nodes):
        if not is_call(node, aten.hardsigmoid.default):
            continue
        conv = as_conv(module, node.args[0])
        name = node.name
        if conv is not None and sole_user(conv.node) == node:
            name = conv.name
            source = conv.rewritten(conv.weight / 6, conv.bias / 6 + 0.5)
        else:
            with module.graph.inserting_before(node):
                sixth = module.graph.call_function(aten.mul.Tensor, (node.args[0], 1 / 6))
                source = module.graph.call_function(aten.add.Tensor, (sixth, 0.5))
        with module.graph.inserting_before(node):
            clamp = module.graph.call_function(aten.hardtanh.default, (source, 0.0, 1.0))
        clamp.meta = dict(node.meta)
        node.replace_all_uses_with(clamp)
        module.graph.erase_node(node)
        done.append(f"{name}: slope 1/6 and offset 1/2 folded, a clamp is left")
    return done


def gates_as_convolutions(module: fx.GraphModule) -> list[str]:
    """(N, C) linear layers between a pooled map and its gate become 1x1 convolutions on (N, C, 1, 1).

    Spelled with linear layers every gate breaks the graph: 17 XNNPACK delegates for Finet-large instead of one.
    """
    done = []
    for node in list(module.graph.nodes):
        if not is_call(node, *_RESHAPES) or len(shape(node)) != 4 or shape(node)[2:] != (1, 1):
            continue
        chain = _linear_chain(node)
        if not chain:
            continue
        value: fx.Node = argument(argument(chain[0]))
        for step in chain:
            value = _four_axes(module, step, value)
        node.replace_all_uses_with(value)
        module.graph.erase_node(node)
        for step in reversed(chain):
            module.graph.erase_node(step)
        layers = sum(is_call(step, aten.linear.default) for step in chain)
        done.append(f"{layer_name(chain[0])}: {layers} linear layers as 1x1 convolutions")
    return done


def _linear_chain(gate: fx.Node) -> list[fx.Node]:
    """Linear and element-wise steps from a flattened (N, C, 1, 1) map to `gate`, in order; empty if it is no gate."""
    chain: list[fx.Node] = []
    node = argument(gate)
    if shape(gate) != (*shape(node), 1, 1):
        return []
    while isinstance(node, fx.Node) and sole_user(node) is not None and len(shape(node)) == 2:
        if is_call(node, *_RESHAPES):
            source = argument(node)
            pooled = isinstance(source, fx.Node) and shape(source) == (*shape(node), 1, 1)
            return chain if pooled and any(is_call(step, aten.linear.default) for step in chain) else []
        if not (_is_linear(node) or node.target in ELEMENTWISE):
            return []
        chain.insert(0, node)
        node = argument(node)
    return []


def _is_linear(node: fx.Node) -> bool:
    """With a constant weight: a computed one cannot become a kernel."""
    return is_call(node, aten.linear.default) and argument(node, 1).op == "get_attr"


def _four_axes(module: fx.GraphModule, step: fx.Node, value: fx.Node) -> fx.Node:
    """`step`, which works on (N, C), on the (N, C, 1, 1) `value`."""
    target: Any = step.target
    with module.graph.inserting_before(step):
        if is_call(step, aten.linear.default):
            weight = constant(module, argument(step, 1))
            assert weight is not None, "_is_linear"
            kernel = set_constant(module, str(argument(step, 1).target), weight[:, :, None, None])
            new = module.graph.call_function(aten.conv2d.default, (value, kernel, *step.args[2:]))
        else:
            new = module.graph.call_function(target, (value, *step.args[1:]), step.kwargs)
    new.meta = dict(step.meta)
    return new
