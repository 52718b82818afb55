"""A quantized network as files, and what the manifest says about it."""

from __future__ import annotations

import dataclasses
import math

from finet_deploy.export.executorch import to_pte
from finet_deploy.export.executorch_int8 import to_int8_program
from finet_deploy.export.exported import Exported
from finet_deploy.export.onnx_int8 import to_int8_onnx
from finet_deploy.export.schema import QuantizationEntry, QuantizedLayer
from finet_deploy.quantize import Quantized

__all__ = ["int8_file", "quantization_entry"]


def int8_file(fmt: str, quantized: Quantized) -> Exported:
    """One file: `pte` or `onnx`. FinetDeployError when its exporter refuses the network."""
    if fmt == "pte":
        program, fp32_ops = to_int8_program(quantized)
        exported = to_pte(program)
    else:
        exported, fp32_ops = to_int8_onnx(quantized)
    return dataclasses.replace(
        exported, dtype="int8", fp32_ops=fp32_ops, notices=(*exported.notices, *_notices(quantized, fp32_ops))
    )


def _notices(quantized: Quantized, fp32_ops: dict[str, int]) -> list[str]:
    calibration = quantized.calibration
    notices = []
    if calibration.built_in:
        notices.append(
            f"int8 ranges come from the package's own photographs ({len(calibration.images)} images), not from "
            "images of yours: give --calibrate FOLDER"
        )
    if quantized.fp32_paths:
        notices.append(
            f"mixed precision: {', '.join(quantized.fp32_paths)} stay in fp32, since int8 lost too much there"
        )
    if fp32_ops:
        listed = ", ".join(f"{op} x {count}" for op, count in fp32_ops.items())
        notices.append(f"in fp32 between int8 operators: {listed}")
    return notices


def quantization_entry(quantized: Quantized) -> QuantizationEntry:
    """What the manifest says about a quantized network."""
    calibration = quantized.calibration
    return QuantizationEntry(
        calibration_source=calibration.source,
        calibration_images=len(calibration.images),
        calibration_sha256=calibration.sha256,
        calibration_built_in=calibration.built_in,
        held_out_images=len(calibration.held_out),
        equalization_strength=quantized.strength,
        equalization_tried={name: _finite(value) for name, value in quantized.candidates.items()},
        simulated_sqnr_db=_finite(quantized.simulated_db),
        fp32_layers=quantized.fp32_paths,
        layers=tuple(
            QuantizedLayer(
                path=layer.path,
                sqnr_db=layer.sqnr_db,
                weight_spread=layer.weight_spread,
                precision=layer.precision,
            )
            for layer in quantized.layers
        ),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
