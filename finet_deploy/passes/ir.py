"""What the passes rewrite: a network as a graph of ATen operators on static shapes, one input, one output.

It is an ordinary `torch.fx.GraphModule`: it runs, it can be copied, cast, quantized and exported again. Constants keep
the dotted names that they had in the network (`stage2.0.conv1.weight`), so that reports name layers as people know
them. Every node knows its value's shape (`shape`), because `refresh` propagates shapes after each rewrite.

Shape letters: N batch, C channels, H and W height and width, O output channels, I input channels of a group.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from finet_deploy.errors import FinetDeployError

__all__ = [
    "ELEMENTWISE",
    "Conv",
    "argument",
    "as_conv",
    "constant",
    "convolutions",
    "is_call",
    "layer_name",
    "lower",
    "plain",
    "refresh",
    "replace",
    "set_constant",
    "shape",
    "sole_user",
    "trace",
]

aten = torch.ops.aten

# One input, the same function of every element, no other tensor: channels and pixels may be cut and put together
# before or after it.
ELEMENTWISE = {
    *(aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.clamp.default, aten.sigmoid.default),
    *(
        aten.hardsigmoid.default,
        aten.hardswish.default,
        aten.silu.default,
        aten.gelu.default,
        aten.tanh.default,
    ),
    *(aten.leaky_relu.default, aten.elu.default, aten.abs.default, aten.neg.default),
}
_ASSERTIONS = {aten._assert_tensor_metadata.default}


def lower(model: nn.Module, x: Tensor) -> fx.GraphModule:
    """The graph of `model` for inputs of the shape of `x`, functional: nothing in it works in place.

    Weights are shared with `model`. FinetDeployError when torch.export cannot trace it.
    """
    return refresh(plain(trace(model, x)), x)


def trace(model: nn.Module, x: Tensor) -> fx.GraphModule:
    """What torch.export makes of `model`: the slow half of `lower`. FinetDeployError when it cannot."""
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(model, (x,), strict=False).run_decompositions({})
            return program.module()
    except Exception as error:  # torch.export raises whatever the network's own code does
        line = (str(error).strip().splitlines() or [""])[0][:200]
        raise FinetDeployError(
            f"the network cannot be traced for the deploy passes: {type(error).__name__}: {line}",
            do="export it with --passes none, or make it traceable with a static input",
        ) from error


def plain(traced: fx.GraphModule) -> fx.GraphModule:
    """What `trace` gave without export's own calling convention; weights are shared. It has no shapes yet."""
    return fx.GraphModule(traced, _plain_graph(traced))


def _plain_graph(traced: fx.GraphModule) -> fx.Graph:
    """The same nodes without export's own calling convention and assertions: one input, one output."""
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    for node in traced.graph.nodes:
        if node.op == "call_module" or node.target in _ASSERTIONS:  # guards on the input's shape; on dtypes
            continue
        if node.op == "output":
            values = node.args[0] if isinstance(node.args[0], (tuple, list)) else (node.args[0],)
            if len(values) != 1 or not isinstance(values[0], fx.Node):
                raise FinetDeployError("the network does not return one tensor", do="use --passes none")
            graph.output(copied[values[0]])
        else:
            copied[node] = graph.node_copy(node, lambda old: copied[old])
    return graph


def refresh(module: fx.GraphModule, x: Tensor) -> fx.GraphModule:
    """Make `module` whole again after its graph was edited: dead nodes and constants out, code and shapes anew."""
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    used = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    stored = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, _ in stored:
        if name not in used:
            owner, _, leaf = name.rpartition(".")
            delattr(module.get_submodule(owner), leaf)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    dtypes = {tensor.dtype for _, tensor in stored if tensor.is_floating_point()}
    with mode:
        fake = torch.empty(x.shape, dtype=dtypes.pop() if len(dtypes) == 1 else x.dtype)
    with torch.no_grad():
        FakeTensorProp(module, mode).propagate_dont_convert_inputs(fake)
    return module


def shape(node: fx.Node) -> tuple[int, ...]:
    """The shape of a node's value; empty when it is not a tensor."""
    value = node.meta.get("val")
    return tuple(int(size) for size in value.shape) if isinstance(value, Tensor) else ()


def is_call(node: Any, *targets: Any) -> bool:
    """Whether a node calls one of these operators."""
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in targets


def argument(node: Any, position: int = 0, default: Any = None) -> Any:
    """A positional argument of a call; `default` where it was not given."""
    return node.args[position] if len(node.args) > position else default


def sole_user(node: fx.Node) -> fx.Node | None:
    """The one node that reads `node`, None when there are several or none."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def replace(old: fx.Node, new: fx.Node) -> None:
    """Let everybody who read `old` read `new`, `new` itself excepted."""
    old.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)


def constant(module: fx.GraphModule, node: Any) -> Tensor | None:
    """The tensor that a node stands for, None when it is computed from the input."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value: Any = module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value.detach() if isinstance(value, Tensor) else None


def set_constant(module: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    """A new constant, called `name` or, where that is taken, `name` with a number, at the insertion point."""
    owner_path, _, leaf = name.rpartition(".")
    owner: nn.Module = module
    for part in owner_path.split(".") if owner_path else ():
        if not isinstance(getattr(owner, part, None), nn.Module):
            owner.add_module(part, nn.Module())
        owner = getattr(owner, part)
    number, unique = 1, leaf
    while hasattr(owner, unique):
        number += 1
        unique = f"{leaf}_{number}"
    owner.register_parameter(unique, nn.Parameter(value.detach().clone().contiguous(), requires_grad=False))
    return module.graph.get_attr(f"{owner_path}.{unique}" if owner_path else unique)


class Conv:
    """A view of one `aten.conv2d` whose weight is constant.

    weight: (O, I, kh, kw). bias: (O,), zeros where it has none. name: the layer's dotted path.
    """

    def __init__(self, module: fx.GraphModule, node: fx.Node, weight: Tensor, bias: Tensor | None) -> None:
        self.module, self.node, self.weight = module, node, weight
        self.name = str(node.args[1].target).rpartition(".")[0]  # type: ignore[union-attr]
        self.has_bias = bias is not None
        self.bias = weight.new_zeros(weight.shape[0]) if bias is None else bias
        defaults: tuple[Any, ...] = (None, None, None, [1, 1], [0, 0], [1, 1], 1)
        args = (*node.args, *defaults[len(node.args) :])
        self.input: fx.Node = args[0]
        self.stride, self.padding, self.dilation = (_pair(args[i]) for i in (3, 4, 5))
        self.groups: int = args[6]

    @property
    def out_channels(self) -> int:
        return int(self.weight.shape[0])

    @property
    def in_channels(self) -> int:
        return int(self.weight.shape[1]) * self.groups

    @property
    def is_depthwise(self) -> bool:
        return self.groups == self.in_channels == self.out_channels > 1

    @property
    def is_pointwise(self) -> bool:
        """1x1 over all channels, one output a pixel."""
        return (
            self.weight.shape[2:] == (1, 1)
            and self.groups == 1
            and self.stride == (1, 1)
            and self.padding == (0, 0)
        )

    def rewritten(self, weight: Tensor, bias: Tensor, *, source: fx.Node | None = None) -> fx.Node:
        """Another convolution of the same geometry in this one's place: everybody who read this one reads it.

        A depthwise one stays depthwise, whatever its new number of channels.
        """
        groups = int(weight.shape[0]) if self.is_depthwise else self.groups
        with self.module.graph.inserting_before(self.node):
            w = set_constant(self.module, f"{self.name}.weight", weight)
            b = set_constant(self.module, f"{self.name}.bias", bias)
            geometry = [list(pair) for pair in (self.stride, self.padding, self.dilation)]
            new = self.module.graph.call_function(
                aten.conv2d.default, (source or self.input, w, b, *geometry, groups)
            )
        new.meta = {key: value for key, value in self.node.meta.items() if key != "val"}
        replace(self.node, new)
        self.module.graph.erase_node(self.node)
        return new


def _pair(value: Any) -> tuple[int, int]:
    values = [value, value] if isinstance(value, int) else list(value)
    return (values[0], values[-1])


def as_conv(module: fx.GraphModule, node: Any) -> Conv | None:
    """`node` as a convolution of a batch with constant weight and bias, None when it is something else.

    A node that was just put into the graph has no shape yet: it replaces one that had four axes.
    """
    if not is_call(node, aten.conv2d.default) or node.kwargs or len(node.args) < 2:
        return None
    if len(shape(node)) not in (0, 4):
        return None
    weight = constant(module, node.args[1])
    bias_node = node.args[2] if len(node.args) > 2 else None
    bias = constant(module, bias_node)
    if weight is None or (bias_node is not None and bias is None) or not isinstance(node.args[0], fx.Node):
        return None
    if len(node.args) > 4 and isinstance(node.args[4], str):
        return None
    return Conv(module, node, weight, bias)


def convolutions(module: fx.GraphModule) -> Iterator[Conv]:
    """Every convolution, in the order in which they run; the graph may be edited meanwhile."""
    for node in list(module.graph.nodes):
        conv = as_conv(module, node)
        if conv is not None:
            yield conv


def layer_name(node: fx.Node) -> str:
    """How a report names a node: the path of the layer that it came from, or its own name."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(entry[0]) for entry in stack.values() if str(entry[0])]
    return paths[-1] if paths else node.name
