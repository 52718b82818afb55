"""int8: post-training quantization of a fused network, for ExecuTorch (XNNPACK) and ONNX Runtime (QDQ).

The order: `load_calibration` (images), `quantize_network` (equalize, round, decide), then one small file a runtime.
Both files come from the same graph with the same rounded weights; each runtime measures activation ranges by its own
tool. Nothing here writes a file or judges one: `finet_deploy.export` does.
"""

from __future__ import annotations

from finet_deploy.quantize.calibration import Calibration, calibration_of, load_calibration
from finet_deploy.quantize.ptq import LayerReport, Quantized, quantize_network

__all__ = [
    "Calibration",
    "LayerReport",
    "Quantized",
    "calibration_of",
    "load_calibration",
    "quantize_network",
]
