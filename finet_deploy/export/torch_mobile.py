"""`.ptl`: PyTorch Mobile's lite interpreter. A legacy target, kept because the paper's Table 4 was measured on it.

Never `torch.utils.mobile_optimizer.optimize_for_mobile`: it fails in current wheels (XNNPACK is off there), and older
ones lost the bias of a bias-less convolution before a batch norm.
"""

from __future__ import annotations

import collections
import io
import json

import torch
from torch import Tensor, nn
from torch.jit.mobile import _get_model_bytecode_version

from finet_deploy.export.exported import Exported, exporter_errors, quiet
from finet_deploy.runtimes.android import known_runtimes
from finet_deploy.runtimes.torch_mobile import EXTRA_FILE

__all__ = ["to_ptl"]


def to_ptl(model: nn.Module, x: Tensor) -> Exported:
    """Trace, freeze (which folds what batch norms there are) and save. x: (1, 3, H, W), static."""
    with exporter_errors("ptl"), quiet(), torch.no_grad():
        traced = torch.jit.trace(model, x, check_trace=False)  # every file is run against the truth later
        frozen = torch.jit.freeze(traced)
        shape = json.dumps({"input_shape": list(x.shape)})
        data = frozen._save_to_buffer_for_lite_interpreter(_extra_files={EXTRA_FILE: shape})
        bytecode_version = _get_model_bytecode_version(io.BytesIO(data))
        operators = tuple(sorted(torch.jit.export_opnames(frozen)))
    nodes = frozen.inlined_graph.nodes()
    counts = collections.Counter(node.kind() for node in nodes if node.kind().startswith("aten::"))
    return Exported(
        data=data,
        exporter_version=f"torch {torch.__version__}",
        op_counts=dict(sorted(counts.items())),
        bytecode_version=bytecode_version,
        operators=operators,
        notices=(
            "legacy target: PyTorch Mobile's lite interpreter, without XNNPACK prepacking; needs a matching "
            f"pytorch_android_lite (bytecode version {bytecode_version}; {_loads()})",
        ),
    )


def _loads() -> str:
    """Which versions the Android app takes."""
    row = known_runtimes()["ptl"]
    assert row.bytecode is not None
    return f"the Android app has {row.version}, which loads {row.bytecode[0]} to {row.bytecode[1]}"
