"""From the runtimes' operators to the network's modules, with the multiply-adds and the bytes of each."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from finet_deploy.export.operators import NodeEntry, OnnxOperators, Operators, PteOperators, TensorInfo
from finet_deploy.profile.timeline import Operator

__all__ = ["Named", "align", "name_operators"]

# Runtime names of what an XNNPACK node may become, where the node's own name does not say it.
BECOMES = {
    "XNNConv2d": r"Convolution|Fully Connected",
    "XNNDepthwiseConv2d": r"Convolution",
    "XNNConvTranspose2d": r"Deconvolution|Convolution",
    "XNNFullyConnected": r"Fully Connected|Batch Matrix|Convolution",
    "XNNBatchMatrixMultiply": r"Batch Matrix|Fully Connected",
    "XNNStaticTranspose": r"Transpose|Copy",
    "XNNStaticReshape": r"Static Reshape|Reshape|Copy",
    "XNNAvgPooling2d": r"Average Pooling",
    "XNNGlobalAvgPooling2d": r"Global Average Pooling|Mean|Sum|Average",
    "XNNStaticSlice": r"Slice|Copy",
}
# XNNPACK has no name for a unary operator in int8, which it does by a table: a sigmoid is one.
UNARY = r"XNN(Sigmoid|Hardswish|Tanh|ELU|LeakyReLU|Abs|Negate|Square|SquareRoot|Gelu|Exp|Log|Floor|Ceiling)"
NAMELESS_UNARY = "Invalid Unary Op"
ROUNDS = "XNNConvert"
CONCATENATE = r"Concatenate|Copy"
SIZES = {
    "float16": 2,
    "int64": 8,
    "float64": 8,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
    "float": 4,
    "float32": 4,
    "int32": 4,
}
SKIP = 1.0  # cost of a node that left no operator


@dataclass(frozen=True)
class Named:
    """Where an operator comes from. module: path in the network, None where nothing says it.

    ops: the graph's operators in it, the fused ones too. macs, bytes: None where unknown; bytes: what it reads and
    writes, each tensor once. reason: why it is outside a delegate.
    """

    module: str | None = None
    ops: tuple[str, ...] = ()
    macs: int | None = None
    bytes: int | None = None
    reason: str | None = None


def name_operators(operators: Sequence[Operator], known: Operators | None, runtime: str) -> list[Named]:
    """For each operator of a timeline. known: of the bundle; without it nothing but ONNX Runtime's shapes is known."""
    if runtime == "onnxruntime":
        return [_name_onnx(item, known.onnx if known else None) for item in operators]
    if known is None or known.pte is None:
        return [Named() for _ in operators]
    return _name_pte(operators, known.pte)


def _name_pte(operators: Sequence[Operator], known: PteOperators) -> list[Named]:
    named: dict[int, Named] = {}
    delegates: dict[int, list[int]] = {}
    for i, item in enumerate(operators):
        if item.place == "delegate":
            delegates.setdefault(item.instruction, []).append(i)
        elif item.place == "kernel":
            entry = known.nodes.get(str(known.kernels.get(str(item.instruction))))
            named[i] = _describe([entry]) if entry else Named()
    if len(delegates) != len(known.delegates):
        return [named.get(i, Named()) for i in range(len(operators))]
    for steps, places in zip(known.delegates, delegates.values()):
        matches = align([kind for kind, _ in steps], [operators[i].type for i in places])
        if matches is None:
            continue
        edges = [*sorted(set(matches)), len(steps)]
        for i, match in zip(places, matches):
            until = edges[edges.index(match) + 1]
            entries = [_entry(known, kind, handle) for kind, handle in steps[match:until]]
            named[i] = _describe([entry for entry in entries if entry is not None])
    return [named.get(i, Named()) for i in range(len(operators))]


def _entry(known: PteOperators, kind: str, handle: int) -> NodeEntry | None:
    """What is known of an XNNPACK node. The rounding beside an operator has its handle, and none of its work."""
    entry = known.nodes.get(str(handle))
    if entry is None or kind != ROUNDS:
        return entry
    return msgspec.structs.replace(entry, op=kind, inputs=entry.outputs, macs=0)


def align(nodes: Sequence[str], operators: Sequence[str]) -> list[int] | None:
    """For each operator, in order, the node that it came from; None when they do not fit.

    XNNPACK keeps the order and fuses activations into what is before them. Of all ways the one with the fewest nodes
    fused is taken.
    """
    best: list[list[float]] = [[math.inf] * (len(operators) + 1) for _ in range(len(nodes) + 1)]
    step: dict[tuple[int, int], tuple[int, int]] = {}
    best[0][0] = 0.0

    def offer(at: tuple[int, int], cost: float, origin: tuple[int, int]) -> None:
        if cost < best[at[0]][at[1]]:
            best[at[0]][at[1]], step[at] = cost, origin

    for n in range(len(nodes) + 1):
        for o in range(len(operators) + 1):
            if not n:
                continue
            offer((n, o), best[n - 1][o] + SKIP, (n - 1, o))
            if o and _becomes(nodes[n - 1], operators[o - 1]):
                offer((n, o), best[n - 1][o - 1], (n - 1, o - 1))
    at = (len(nodes), len(operators))
    if math.isinf(best[at[0]][at[1]]):
        return None
    matches: list[int] = []
    while at[1]:
        origin = step[at]
        matches += [at[0] - 1] * (at[1] - origin[1])
        at = origin
    return matches[::-1]


def _becomes(node: str, operator: str) -> bool:
    if node.startswith("XNNConcatenate"):
        return re.match(CONCATENATE, operator) is not None
    if re.fullmatch(UNARY, node) and operator == NAMELESS_UNARY:
        return True
    if node in BECOMES:
        return re.match(BECOMES[node], operator) is not None
    own = re.sub(r"^XNN(Static)?|2[dD]?$|\d+$", "", node).lower()
    return re.sub(r"[^a-z]", "", operator.lower()).startswith(own)


def _describe(entries: Sequence[NodeEntry]) -> Named:
    if not entries:
        return Named()
    first, last = entries[0], entries[-1]
    moved = [*first.inputs, *last.outputs]
    return Named(
        module=first.module,
        ops=tuple(entry.op for entry in entries),
        macs=sum(entry.macs for entry in entries),
        bytes=sum(_size(item) for item in moved),
        reason=first.reason,
    )


def _size(tensor: TensorInfo) -> int:
    return math.prod(tensor.shape) * SIZES.get(tensor.dtype, 4)


def _name_onnx(item: Operator, known: OnnxOperators | None) -> Named:
    moved = _onnx_bytes(item.details)
    entries = _onnx_entries(item, known.nodes) if known else []
    if not entries:
        return Named(bytes=moved, macs=None if known is None else 0)
    # Weights in a layout of the runtime's own are no inputs any more.
    constants = sum(_size(tensor) for entry in entries for tensor in entry.inputs if tensor.constant)
    told = int(item.details.get("parameter_size", 0) or 0)
    return Named(
        module=entries[0].module,
        ops=tuple(entry.op for entry in entries),
        macs=sum(entry.macs for entry in entries),
        bytes=None if moved is None else moved + max(0, constants - told),
    )


def _onnx_entries(item: Operator, nodes: Mapping[str, NodeEntry]) -> list[NodeEntry]:
    """The graph's nodes in one of the runtime's.

    The runtime names a fused node after its first one, a node in its own layout after the value that it gives. From
    that value it is followed back to the node that does the work.
    """
    name = re.sub(r"^fused |_nchwc$|/duplicated.*$", "", item.name)
    if name in nodes:
        return [nodes[name]]
    givers = {tensor.name: entry for entry in nodes.values() for tensor in entry.outputs}
    chain: list[NodeEntry] = []
    wanted = item.type.removeprefix("Fused").removeprefix("QLinear")
    entry = givers.get(name)
    while entry is not None:
        chain.insert(0, entry)
        if entry.op == wanted:
            return chain
        entry = next((givers[tensor.name] for tensor in entry.inputs if tensor.name in givers), None)
        if len(chain) > 4:
            break
    return []


def _onnx_bytes(details: Mapping[str, Any]) -> int | None:
    """What the node reads and writes, from the shapes that the runtime tells; None where it tells none."""
    total = 0
    for key in ("input_type_shape", "output_type_shape"):
        tensors = details.get(key)
        if not isinstance(tensors, list):
            return None
        for tensor in tensors:
            for dtype, shape in tensor.items() if isinstance(tensor, dict) else ():
                total += math.prod(shape) * SIZES.get(dtype, 4)
    return total
