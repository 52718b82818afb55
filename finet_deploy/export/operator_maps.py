"""Reading the way from a file's operators to the network's modules out of what the exporters know."""

from __future__ import annotations

import ast
import contextlib
import importlib.resources
import logging
import math
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import torch

from finet_deploy.errors import FinetDeployError
from finet_deploy.export.exported import needs
from finet_deploy.export.operators import NodeEntry, OnnxOperators, PteOperators, TensorInfo

__all__ = ["onnx_operators", "pte_operators", "refusals", "rounded_operators"]

NO_RULE = "XNNPACK's partitioner has no rule for it"
PARTITIONER = "executorch.backends.xnnpack.partition.config"
PARTITIONER_LOGGERS = tuple(
    f"{PARTITIONER}.{name}" for name in ("gemm_configs", "node_configs", "xnnpack_config")
)
ROUNDING = ("QuantizeLinear", "DequantizeLinear")
FUSED = ("relu", "hardtanh", "clamp")  # into what is before them, in int8
NAME_SCOPES = "pkg.torch.onnx.name_scopes"
# Slots of XNNPACK's flatbuffer tables (schema.fbs of the executorch wheel): vtable offset 4 + 2 * slot.
GRAPH_NODES, NODE_TYPE, NODE_HANDLE = 6, 4, 8
HEADER_MAGIC, HEADER_FLATBUFFER = slice(4, 8), slice(10, 14)


@contextlib.contextmanager
def refusals() -> Iterator[dict[str, str]]:
    """While a network is lowered: node -> why XNNPACK's partitioner did not take it, as it says itself."""
    found: dict[str, str] = {}

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            node, reason = getattr(record.msg, "node", None), getattr(record.msg, "reason", None)
            if node is not None and isinstance(reason, str):
                found.setdefault(str(node), reason)

    listener, loggers = Listener(), [logging.getLogger(name) for name in PARTITIONER_LOGGERS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(listener)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
    try:
        yield found
    finally:
        for logger, (level, propagate) in zip(loggers, before):
            logger.removeHandler(listener)
            logger.setLevel(level)
            logger.propagate = propagate


def pte_operators(program: Any, refused: Mapping[str, str]) -> PteOperators:
    """Of a lowered program (an `ExecutorchProgramManager`). refused: from `refusals`."""
    handles = program.debug_handle_map or {}
    kernels = {
        str(instruction): handle
        for instruction, handle in handles.get("forward", handles).items()
        if isinstance(handle, int)
    }
    graph_module = program.exported_program().graph_module
    nodes: dict[str, NodeEntry] = {}
    delegates = []
    for node in graph_module.graph.nodes:
        if node.op == "call_function" and node.target.__name__ == "executorch_call_delegate":
            lowered = getattr(graph_module, node.args[0].target)
            constants = _constants(lowered.original_module)
            for inner in lowered.original_module.graph.nodes:
                _add(nodes, inner, inner.meta.get("debug_handle"), constants, None)
            delegates.append(_xnnpack_nodes(bytes(lowered.processed_bytes)))
        else:
            # Emitting puts the instruction in the place of the handle on what is not delegated.
            handle = kernels.get(str(node.meta.get("debug_handle")))
            constants = _constants(program.exported_program())
            _add(nodes, node, handle, constants, refused.get(node.name, NO_RULE))
    return PteOperators(nodes=nodes, delegates=tuple(delegates), kernels=kernels)


def _constants(program: Any) -> set[str]:
    signature = program.graph_signature
    return {
        *signature.inputs_to_parameters,
        *signature.inputs_to_buffers,
        *signature.inputs_to_lifted_tensor_constants,
    }


def _add(
    nodes: dict[str, NodeEntry], node: Any, handle: object, constants: set[str], reason: str | None
) -> None:
    if node.op != "call_function" or not isinstance(handle, int) or node.target is operator.getitem:
        return
    if str(handle) in nodes and _rounding(node):
        return  # an operator in int8 shares its handle with the rounding around it
    inputs = tuple(_tensor(item, constants) for item in node.all_input_nodes if _is_tensor(item))
    outputs = (_written(node, constants),) if _is_tensor(node) else ()
    op = _operator(node.target)
    nodes[str(handle)] = NodeEntry(
        op=op,
        module=_module(node),
        inputs=inputs,
        outputs=outputs,
        macs=_macs(op, inputs, outputs),
        reason=reason,
    )


def _rounding(node: Any, kind: str = "quantize_per") -> bool:
    return str(node.op) == "call_function" and kind in str(node.target)


def _operator(target: Any) -> str:
    """ATen's name of an operator. The exporter wraps those that it may still lower: `_op` is the ATen operator there,
    and an unnamed builtin function in an ATen operator itself."""
    aten = target if isinstance(target, torch._ops.OpOverload) else getattr(target, "_op", target)
    return str(aten).removeprefix("torch.ops.")


def _is_tensor(node: Any) -> bool:
    return hasattr(node.meta.get("val"), "shape")


def _tensor(node: Any, constants: set[str]) -> TensorInfo:
    """What an operator reads: where it is dequantized on the way, the rounded values."""
    if _rounding(node, "dequantize_per"):
        node = node.args[0]
    value = node.meta["val"]
    return TensorInfo(
        node.name,
        tuple(int(size) for size in value.shape),
        str(value.dtype).removeprefix("torch."),
        node.name in constants,
    )


def _written(node: Any, constants: set[str]) -> TensorInfo:
    """What it writes: the rounded values, where nobody reads the others. An activation is done on the way."""
    last = node
    while len(last.users) == 1 and "quantize_per" not in str(last.target):
        (user,) = last.users
        if _rounding(user, ".quantize_per"):
            return _tensor(user, constants)
        if not any(name in str(user.target) for name in FUSED):
            break
        last = user
    return _tensor(node, constants)


def _module(node: Any) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""


def _macs(op: str, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> int:
    """Multiply-adds of a convolution or matrix product, ATen's or ONNX's: what one output takes, times the outputs."""
    kind = op.lower()
    weights = [item for item in inputs if item.constant and len(item.shape) >= 2]
    if not outputs or len(inputs) < 2:
        return 0
    count = math.prod(outputs[0].shape)
    if "conv" in kind and weights:
        return count * math.prod(weights[0].shape[1:])
    if kind == "gemm" or any(name in kind for name in ("linear", "addmm", "aten.mm", "bmm", "matmul")):
        data = next((item for item in inputs if not item.constant and len(item.shape) >= 2), inputs[0])
        return count * data.shape[-1]
    return 0


def _xnnpack_nodes(payload: bytes) -> tuple[tuple[str, int], ...]:
    """(type, debug handle) of the nodes in a delegate's payload, in the order in which XNNPACK defines them."""
    table_module = needs("flatbuffers.table", "executorch")
    types = _xnnpack_types()
    if payload[HEADER_MAGIC] != b"XH00":
        raise FinetDeployError("an XNNPACK payload has another header", do="check the executorch version")
    data = payload[int.from_bytes(payload[HEADER_FLATBUFFER], "little") :]
    flags = needs("flatbuffers.number_types", "executorch")

    def table(at: int) -> Any:
        return table_module.Table(data, at)

    graph = table(int.from_bytes(data[:4], "little"))
    place = graph.Offset(GRAPH_NODES)
    found = []
    for i in range(graph.VectorLen(place)):
        node = table(graph.Indirect(graph.Vector(place) + 4 * i))
        kind, handle = node.Offset(NODE_TYPE), node.Offset(NODE_HANDLE)
        number = node.Get(flags.Uint8Flags, node.Pos + kind) if kind else 0
        found.append((types[number], node.Get(flags.Uint32Flags, node.Pos + handle) if handle else 0))
    return tuple(found)


def _xnnpack_types() -> list[str]:
    """Names of XNNPACK's node types by their number in the payload, where 0 is none: as its schema lists them."""
    package = needs("executorch.backends.xnnpack.serialization", "executorch")
    text = (importlib.resources.files(package) / "schema.fbs").read_text()
    union = re.search(r"union XNodeUnion \{(.*?)\}", text, re.DOTALL)
    if union is None:
        raise FinetDeployError("XNNPACK's schema has no list of nodes", do="check the executorch version")
    return ["", *re.findall(r"^\s*(\w+)", union[1], re.MULTILINE)]


def onnx_operators(proto: Any) -> OnnxOperators:
    """Of a model as the exporter made it, before its metadata are taken out."""
    onnx = needs("onnx", "onnx")
    graph = proto.graph
    constants = {
        item.name: (tuple(item.dims), _onnx_dtype(onnx, item.data_type)) for item in graph.initializer
    }
    values = {item.name: item.type.tensor_type for item in (*graph.input, *graph.value_info, *graph.output)}

    def tensor(name: str) -> TensorInfo:
        if name in constants:
            return TensorInfo(name, *constants[name], True)
        known = values.get(name)
        if known is None:
            return TensorInfo(name, (), "", False)
        shape = tuple(max(0, dim.dim_value) for dim in known.shape.dim)
        return TensorInfo(name, shape, _onnx_dtype(onnx, known.elem_type), False)

    nodes = {}
    for node in graph.node:
        inputs, outputs = tuple(map(tensor, filter(None, node.input))), tuple(map(tensor, node.output))
        nodes[node.name] = NodeEntry(
            op=node.op_type,
            module=_scope(node),
            inputs=inputs,
            outputs=outputs,
            macs=_macs(node.op_type, inputs, outputs),
        )
    return OnnxOperators(nodes=nodes)


def rounded_operators(plain: OnnxOperators, proto: Any) -> OnnxOperators:
    """Of an int8 model (QDQ) that was made of one with the operators `plain`: those of them that are left, with the
    types that their values are rounded to, and the rounding itself, at the module whose value it is."""
    onnx = needs("onnx", "onnx")
    types = {item.name: _onnx_dtype(onnx, item.data_type) for item in proto.graph.initializer}
    givers = {name: node for node in proto.graph.node for name in node.output}
    readers = {name: node for node in proto.graph.node for name in node.input}

    def rounded(item: TensorInfo, name: str, by: Any, kind: str) -> TensorInfo:
        if by is None or by.op_type != kind:
            return TensorInfo(name, item.shape, item.dtype, item.constant)
        return TensorInfo(name, item.shape, types.get(by.input[0]) or types[by.input[2]], item.constant)

    def module_of(node: Any) -> str:
        giver = givers.get(node.input[0])
        while giver is not None and giver.op_type in ROUNDING:
            giver = givers.get(giver.input[0])
        known = plain.nodes.get((giver or readers.get(node.output[0]) or node).name)
        return "" if known is None else known.module

    nodes = {}
    for node in proto.graph.node:
        entry = plain.nodes.get(node.name)
        if entry is not None:
            reads = zip(entry.inputs, filter(None, node.input))
            writes = zip(entry.outputs, node.output)
            inputs = (rounded(item, item.name, givers.get(name), "DequantizeLinear") for item, name in reads)
            outputs = (rounded(item, name, readers.get(name), "QuantizeLinear") for item, name in writes)
            entry = msgspec.structs.replace(entry, inputs=tuple(inputs), outputs=tuple(outputs))
        elif node.op_type in ROUNDING:
            entry = NodeEntry(op=node.op_type, module=module_of(node), inputs=(), outputs=(), macs=0)
        if entry is not None:
            nodes[node.name] = entry
    return OnnxOperators(nodes=nodes)


def _onnx_dtype(onnx: Any, number: int) -> str:
    return str(onnx.helper.tensor_dtype_to_np_dtype(number)) if number else ""


def _scope(node: Any) -> str:
    """The module's path: the scopes are those of all modules around, and at the end the node's own name."""
    text = next((item.value for item in node.metadata_props if item.key == NAME_SCOPES), "[]")
    try:
        scopes = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return ""
    return str(scopes[-2]) if isinstance(scopes, list) and len(scopes) >= 2 else ""
