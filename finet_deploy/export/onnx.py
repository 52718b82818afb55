"""`.onnx`: torch's dynamo exporter, one file with the weights in it."""

from __future__ import annotations

import collections
import contextlib
import io
from typing import Any

import torch
from torch.export import ExportedProgram

from finet_deploy.errors import FinetDeployError
from finet_deploy.export.exported import INPUT_NAME, OUTPUT_NAME, Exported, exporter_errors, needs, quiet
from finet_deploy.export.operator_maps import onnx_operators

__all__ = ["to_onnx"]


def to_onnx(program: ExportedProgram) -> Exported:
    """Export a traced network to ONNX. FinetDeployError when the exporter or onnx's checker refuses it."""
    with quiet():
        onnx = needs("onnx", "onnx")
        needs("onnxscript", "onnx")
    # The exporter reports its progress on stdout, which belongs to our caller.
    with exporter_errors("onnx"), quiet(), contextlib.redirect_stdout(io.StringIO()):
        converted = torch.onnx.export(
            program,
            (),
            None,
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
        )
        if converted is None:
            raise FinetDeployError("torch.onnx.export returned nothing", do="check the torch version")
        proto = converted.model_proto
        operator_map = onnx_operators(proto)
        _strip_origin(proto)
        onnx.checker.check_model(proto, full_check=True)
    counts = collections.Counter(node.op_type for node in proto.graph.node)
    return Exported(
        data=proto.SerializeToString(deterministic=True),
        exporter_version=f"torch {torch.__version__}, onnxscript {needs('onnxscript', 'onnx').__version__}",
        op_counts=dict(sorted(counts.items())),
        operator_map=operator_map,
    )


def _strip_origin(proto: Any) -> None:
    """Take out the stack traces that the exporter puts on every node: paths of the machine that exported."""
    graph = proto.graph
    values = (*graph.value_info, *graph.input, *graph.output, *graph.initializer)
    for item in (proto, graph, *graph.node, *values):
        del item.metadata_props[:]
        item.doc_string = ""
