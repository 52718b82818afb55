"""`.onnx` in int8: onnxruntime.quantization's QDQ form, weights per channel, activations and weights as int8."""

from __future__ import annotations

import collections
import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from finet_deploy.errors import FinetDeployError
from finet_deploy.export.exported import INPUT_NAME, Exported, exporter_errors, needs, quiet, trace_program
from finet_deploy.export.onnx import to_onnx
from finet_deploy.export.operator_maps import rounded_operators
from finet_deploy.export.operators import OnnxOperators
from finet_deploy.quantize.graph import ADD, MUL, RELU, aten
from finet_deploy.quantize.ptq import Quantized

__all__ = ["to_int8_onnx"]

SATURATES = (
    "on an x86 processor without VNNI, ONNX Runtime adds pairs of int8 products in 16 bits, which may saturate: check "
    "accuracy there; ARM processors and VNNI do not"
)
_KINDS: dict[str, set[Any]] = {
    "Conv": {aten.conv2d.default},
    "Gemm": {aten.linear.default},
    "Relu": RELU,
    "Add": ADD,
    "Mul": MUL,
    "ReduceMean": {aten.mean.dim},
    "Sigmoid": {aten.sigmoid.default},
    "Clip": {aten.hardtanh.default, aten.hardtanh_.default},
}
_ROUNDING = {"QuantizeLinear", "DequantizeLinear"}
# Operators that ONNX Runtime's CPU provider fuses with the rounding around them. A ReduceMean it computes in fp32.
_INT8 = {
    "Conv",
    "Gemm",
    "MatMul",
    "Add",
    "Mul",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Sigmoid",
    "Concat",
}
_FREE = {
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Identity",
}  # move values, compute nothing


def to_int8_onnx(quantized: Quantized) -> tuple[Exported, dict[str, int]]:
    """The file, and its operators that run in fp32 by name. Ranges are the extremes on the calibration images."""
    images = quantized.calibration.images
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before it is imported, see finet_deploy.runtimes.onnxruntime
    with quiet():
        onnx = needs("onnx", "onnx")
        quantization = needs("onnxruntime.quantization", "onnx")
    plain = to_onnx(trace_program(quantized.graph, images[:1]))
    with exporter_errors("onnx (int8)"), _silent(), tempfile.TemporaryDirectory() as name:
        model = onnx.load_model_from_string(plain.data)
        source, target = Path(name) / "fp32.onnx", Path(name) / "int8.onnx"
        source.write_bytes(plain.data)
        quantization.quantize_static(
            str(source),
            str(target),
            _reader(quantization, images),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=_names(model, quantized),
        )
        model = onnx.load(str(target))
        onnx.checker.check_model(model, full_check=True)
    counts = collections.Counter(node.op_type for node in model.graph.node)
    islands = _fp32_operators(model)
    assert isinstance(plain.operator_map, OnnxOperators)
    return Exported(
        data=model.SerializeToString(deterministic=True),
        exporter_version=f"{plain.exporter_version}, onnxruntime {needs('onnxruntime', 'onnx').__version__}",
        op_counts=dict(sorted(counts.items())),
        notices=(SATURATES,),
        operator_map=rounded_operators(plain.operator_map, model),
    ), islands


def _reader(quantization: Any, images: torch.Tensor) -> Any:
    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._rest = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self._rest, None)
            return None if image is None else {INPUT_NAME: image[None].numpy()}

    return Reader()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """onnxruntime.quantization logs to the root logger and prints advice that does not apply here."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        with quiet(), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.root.setLevel(level)


def _names(model: Any, quantized: Quantized) -> list[str]:
    """The file's nodes that come from the operators left in fp32: the n-th of a kind there is the n-th here.

    Not by their names: torch's exporter gives other ones to what worked in place.
    """
    kept = []
    for kind, targets in _KINDS.items():
        theirs = [node for node in model.graph.node if node.op_type == kind]
        ours = [node for node in quantized.graph.graph.nodes if node.target in targets]
        chosen = [position for position, node in enumerate(ours) if node.name in quantized.fp32]
        if chosen and len(ours) != len(theirs):
            raise FinetDeployError(
                f"{len(ours)} operators became {len(theirs)} {kind} nodes: those that have to stay in fp32 cannot be "
                "told from the others",
                do="leave onnx out of --formats",
            )
        kept += [theirs[position].name for position in chosen]
    return kept


def _fp32_operators(model: Any) -> dict[str, int]:
    """Nodes that run in fp32: what ONNX Runtime has not in int8, or reads a value that was not dequantized."""
    made = {output: node.op_type for node in model.graph.node for output in node.output}
    counts: collections.Counter[str] = collections.Counter()
    for node in model.graph.node:
        if node.op_type in _ROUNDING | _FREE:
            continue
        values = [made[name] for name in node.input if name in made]
        if node.op_type not in _INT8 or not all(kind == "DequantizeLinear" for kind in values):
            counts[node.op_type] += 1
    return dict(sorted(counts.items()))
