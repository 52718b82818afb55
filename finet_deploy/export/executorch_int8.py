"""`.pte` in int8: torchao's pt2e flow with ExecuTorch's XNNPACK quantizer, weights per channel."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from finet_deploy.export.exported import exporter_errors, needs, quiet
from finet_deploy.quantize.graph import ADD, MUL, RELU, aten
from finet_deploy.quantize.ptq import Quantized

__all__ = ["fp32_operators", "to_int8_program"]

SMALLEST_SCALE = 2.0**-12  # of an activation's step, XNNPACK's own: below it requantization loses bits
# Of a weight's step. XNNPACK's quantizer takes 2**-12 here too, which is above the step of every row whose largest
# weight is below 0.031: one in twenty of Finet-large's after fusing, which would then have fewer than 8 bits. Not
# smaller: a bias is an integer of 32 bits in units of both steps.
SMALLEST_WEIGHT_SCALE = 2.0**-20
# What XNNPACK's delegate computes in int8, and what only moves values.
_INT8 = {
    *RELU,
    *ADD,
    *MUL,
    *(aten.conv2d.default, aten.linear.default, aten.mean.dim, aten.max_pool2d.default),
    *(
        aten.avg_pool2d.default,
        aten.adaptive_avg_pool2d.default,
        aten.hardtanh.default,
        aten.hardtanh_.default,
    ),
    *(aten.cat.default, aten.slice.Tensor, aten.view.default, aten.reshape.default, aten.flatten.using_ints),
    *(
        aten.permute.default,
        aten.transpose.int,
        aten.squeeze.dims,
        aten.unsqueeze.default,
        aten.dropout.default,
    ),
}


def to_int8_program(quantized: Quantized) -> tuple[ExportedProgram, dict[str, int]]:
    """The program that `to_pte` lowers, and its operators that run in fp32 by name.

    Activation ranges are minimal-error ones of histograms (torchao's HistogramObserver) over the calibration images.
    """
    images = quantized.calibration.images
    with quiet():
        pt2e = needs("torchao.quantization.pt2e.quantize_pt2e", "executorch")
        quantizer = _quantizer(quantized.fp32)
    with exporter_errors("pte (int8)"), quiet(), torch.no_grad():
        # A copy, not a new export, which may name operators otherwise.
        prepared = pt2e.prepare_pt2e(copy.deepcopy(quantized.graph), quantizer)
        for image in images:
            prepared(image[None])
        converted = pt2e.convert_pt2e(prepared)
        return torch.export.export(converted, (images[:1],)), fp32_operators(converted)


def _quantizer(fp32: frozenset[str]) -> Any:
    xnnpack = needs("executorch.backends.xnnpack.quantizer.xnnpack_quantizer", "executorch")
    own = needs("torchao.quantization.pt2e.quantizer", "executorch")
    observers = needs("torchao.quantization.pt2e", "executorch")
    config = xnnpack.get_symmetric_quantization_config(is_per_channel=True)
    weight = dataclasses.replace(
        config.weight,
        observer_or_fake_quant_ctr=observers.PerChannelMinMaxObserver.with_args(eps=SMALLEST_WEIGHT_SCALE),
    )
    activation = dataclasses.replace(
        config.input_activation,
        observer_or_fake_quant_ctr=observers.HistogramObserver.with_args(eps=SMALLEST_SCALE),
    )
    config = own.QuantizationConfig(activation, activation, weight, None, False)

    class Quantizer(xnnpack.XNNPACKQuantizer):  # type: ignore[name-defined]
        """XNNPACK's, but a mean gets a range of its own: a mean of 49 values spans a fraction of what they do."""

        def annotate(self, model: GraphModule) -> GraphModule:
            for node in model.graph.nodes:
                if node.target is aten.mean.dim and node.name not in fp32:
                    node.meta[own.quantizer.Q_ANNOTATION_KEY] = own.QuantizationAnnotation(
                        input_qspec_map={node.args[0]: activation}, output_qspec=activation, _annotated=True
                    )
            annotated: GraphModule = super().annotate(model)
            return annotated

    quantizer = Quantizer().set_global(config)
    quantizer.set_filter_function(lambda node: node.name not in fp32)
    return quantizer


def fp32_operators(converted: GraphModule) -> dict[str, int]:
    """Operators of a converted graph that compute in fp32, by name: those that XNNPACK has not in int8 (a sigmoid),
    and those that read or give a value that is not rounded (left in fp32)."""
    counts: dict[str, int] = {}
    for node in converted.graph.nodes:
        if node.op != "call_function" or _is_rounding(node) or not _is_tensor(node) or _in_int8(node):
            continue
        name = str(node.target).removeprefix("aten.").partition(".")[0]
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def _is_tensor(node: Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def _in_int8(node: Node) -> bool:
    users = list(node.users)
    # A ReLU after a quantized operator is a part of it: its input was never rounded, and need not be.
    fused = len(users) == 1 and users[0].target in RELU
    written = fused or (bool(users) and all(_is_rounding(user) for user in users))
    return node.target in _INT8 and written and _reads_rounded(node)


def _is_rounding(node: Node) -> bool:
    return "quantize_per" in str(node.target)


def _reads_rounded(node: Node) -> bool:
    if node.target in RELU:
        source = node.args[0]
        return isinstance(source, Node) and (_is_rounding(source) or _reads_rounded(source))
    values = [value for value in node.all_input_nodes if value.op != "get_attr"]
    return bool(values) and all(_is_rounding(value) for value in values)
