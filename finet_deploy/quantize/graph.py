"""The traced network as the quantizer sees it: its layers with their weights, and which values an int8 runtime rounds.

Shape letters: N images, C channels (dimension 1 of every value), H and W pixels, K outputs of a layer.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from finet_deploy.errors import FinetDeployError

__all__ = ["ADD", "MUL", "RELU", "Layer", "graph_of", "layers", "quantized_values", "readers"]

aten = torch.ops.aten
CONV, LINEAR = {aten.conv2d.default}, {aten.linear.default}
RELU = {aten.relu.default, aten.relu_.default}
ADD, MUL = {aten.add.Tensor, aten.add_.Tensor}, {aten.mul.Tensor, aten.mul_.Tensor}
MEAN = {aten.mean.dim, aten.adaptive_avg_pool2d.default, aten.avg_pool2d.default}
# Nonlinear operators that run in fp32 between quantized ones: their outputs are rounded where a quantized one reads.
ISLANDS = {
    *(aten.sigmoid.default, aten.hardsigmoid.default, aten.hardswish.default, aten.hardswish_.default),
    *(aten.silu.default, aten.silu_.default, aten.hardtanh.default, aten.hardtanh_.default),
}
# They move values, or do nothing in eval mode: rounding passes through them.
FREE = {
    *(
        aten.flatten.using_ints,
        aten.view.default,
        aten.reshape.default,
        aten.dropout.default,
        aten.dropout_.default,
    ),
    *(aten.squeeze.dims, aten.squeeze.dim, aten.unsqueeze.default, aten.permute.default, aten.transpose.int),
    *(aten.contiguous.default, aten.clone.default),
}


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer. weight: (K, C / groups, kh, kw) or (K, C); bias: (K,). Both are the graph's own.

    path: of the module that it came from. shared: another layer has the same weight or bias.
    """

    node: Node
    path: str
    weight: Tensor
    bias: Tensor
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    shared: bool

    @property
    def source(self) -> Node:
        """The value that it reads."""
        return self.node.args[0]  # type: ignore[return-value]

    @property
    def pointwise(self) -> bool:
        """Whether every output is a sum over the channels of one position, without padding."""
        return self.groups == 1 and self.weight[0, 0].numel() == 1 and not any(self.padding)

    def run(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer without its bias, with another weight."""
        if self.weight.ndim == 2:
            return F.linear(x, weight)
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)


def graph_of(program: ExportedProgram) -> GraphModule:
    """A graph of ATen operators with tensors of its own, so that changing them leaves the network as it is.

    Every convolution and linear layer has a bias afterwards (zero where there was none): what rounding adds to a
    layer's mean is taken off there.
    """
    graph: GraphModule = copy.deepcopy(program.module())
    for node in list(graph.graph.nodes):
        if _is_layer(graph, node) and (len(node.args) < 3 or node.args[2] is None):
            _add_bias(graph, node)
    graph.graph.lint()
    graph.recompile()
    return graph


def _is_layer(graph: GraphModule, node: Node) -> bool:
    if node.op != "call_function" or node.target not in CONV | LINEAR:
        return False
    weight = node.args[1]
    return isinstance(weight, Node) and weight.op == "get_attr" and _tensor(graph, weight).is_floating_point()


def _add_bias(graph: GraphModule, node: Node) -> None:
    name = f"_bias_of_{node.name}"
    weight = _tensor(graph, node.args[1])  # type: ignore[arg-type]
    graph.register_parameter(name, nn.Parameter(weight.new_zeros(len(weight)), requires_grad=False))
    with graph.graph.inserting_before(node):
        bias = graph.graph.get_attr(name)
    fake = node.args[1].meta["val"]  # type: ignore[union-attr]
    bias.meta["val"] = fake.new_zeros(len(weight))
    node.args = (node.args[0], node.args[1], bias, *node.args[3:])


def _tensor(graph: GraphModule, node: Node) -> Tensor:
    module, _, name = str(node.target).rpartition(".")
    tensor: Tensor = getattr(graph.get_submodule(module), name)
    return tensor.data


def layers(graph: GraphModule) -> list[Layer]:
    """All convolutions and linear layers with weights of their own, as executed."""
    nodes = [node for node in graph.graph.nodes if _is_layer(graph, node)]
    uses = Counter(str(argument.target) for node in nodes for argument in node.args[1:3])
    found = []
    for node in nodes:
        settings = [*node.args[3:], None, None, None, None][:4]
        found.append(
            Layer(
                node,
                _path(node),
                _tensor(graph, node.args[1]),
                _tensor(graph, node.args[2]),
                _pair(settings[0], 1),
                _pair(settings[1], 0),
                _pair(settings[2], 1),
                int(settings[3] or 1),
                any(uses[str(argument.target)] > 1 for argument in node.args[1:3]),
            )
        )
    if not found:
        raise FinetDeployError("nothing to quantize", do="give a network with convolutions or linear layers")
    return found


def _pair(value: object, default: int) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, Sequence) else (default, default)


def _path(node: Node) -> str:
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) or node.name if stack else node.name


def readers(node: Node) -> list[Node]:
    """The operators that compute with the value, found through those that only move it; the output is none."""
    found: list[Node] = []
    for user in node.users:
        if user.op == "call_function":
            found += readers(user) if user.target in FREE else [user]
    return found


def quantized_values(graph: GraphModule, fp32: frozenset[str] = frozenset()) -> list[Node]:
    """The values that an int8 runtime rounds to 8 bits: the input, and what layers, sums, products, means and
    activations give, a ReLU being one with what it follows.

    fp32: names of operators that stay in fp32. What one of them makes is rounded where an int8 operator reads it; what
    an int8 operator makes is rounded whoever reads it, since that is its output; the input, where one of int8 reads it.
    """
    found = []
    for node in graph.graph.nodes:
        plain = all(user.name in fp32 for user in readers(node))
        if node.op == "placeholder" and not (fp32 and plain):
            found.append(node)
        if node.op != "call_function" or (node.name in fp32 and plain):
            continue
        followed = len(node.users) == 1 and next(iter(node.users)).target in RELU
        if node.target in RELU | MEAN | ISLANDS or (
            node.target in CONV | LINEAR | ADD | MUL and not followed
        ):
            found.append(node)
    return found
