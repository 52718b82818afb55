"""`.pte` in fp16: the network in half precision inside one XNNPACK delegate, with fp32 at both ends.

XNNPACK's fp16 kernels pay on processors with fp16 arithmetic; elsewhere it computes in fp32 between conversions. The
file holds convolutions' weights in fp32 all the same (ExecuTorch's XNNPACK serializer writes them so, and they become
fp16 when the file is loaded); linear layers' are fp16.
"""

from __future__ import annotations

import copy
import dataclasses

from torch import Tensor, nn

from finet_deploy.export.executorch import to_pte
from finet_deploy.export.exported import Exported, trace_program

__all__ = ["to_fp16_pte"]

PAYS_WHERE = (
    "fp16 pays on processors with fp16 arithmetic (ARMv8.2: Cortex-A55, Cortex-A75 and later), which round sums to "
    "fp16 too; others (Cortex-A53, Cortex-A72, x86) sum in fp32 between conversions"
)


class _HalfInside(nn.Module):
    """fp32 in, fp32 out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.network(x.half())
        return y.float()


def to_fp16_pte(model: nn.Module, x: Tensor) -> Exported:
    """The file for a network in fp32, which is left as it is; x: (1, 3, H, W). FinetDeployError when it is refused."""
    half = _HalfInside(copy.deepcopy(model).half()).eval()
    exported = to_pte(trace_program(half, x), conversions=True)
    return dataclasses.replace(exported, dtype="float16", notices=(*exported.notices, PAYS_WHERE))
