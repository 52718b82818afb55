"""`.pte`: ExecuTorch with XNNPACK delegates, static shape."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from torch.export import ExportedProgram

from finet_deploy.errors import FinetDeployError
from finet_deploy.export.exported import Exported, exporter_errors, needs, quiet
from finet_deploy.export.operator_maps import pte_operators, refusals
from finet_deploy.export.xnnpack_passes import without_idle_passes

__all__ = ["require_one_delegate", "to_pte"]

# Memory planning's own nodes: nothing runs there.
NOT_OPS = {"alloc"}
# Picks one result of several, out of a delegate's too: not work, so that it does not count for the share.
NOT_WORK = {"getitem"}
# Of the input to a lower precision, and of the output back.
CONVERSION = "dim_order_ops__to_dim_order_copy_default"


def to_pte(program: ExportedProgram, *, conversions: bool = False) -> Exported:
    """Lower a traced network to an ExecuTorch program. FinetDeployError when the exporter refuses it.

    conversions: whether the program converts its input and its output to another precision, outside of the delegate.
    """
    with quiet():
        exir = needs("executorch.exir", "executorch")
        partitioner = needs("executorch.backends.xnnpack.partition.xnnpack_partitioner", "executorch")
        configs = needs("executorch.backends.xnnpack.utils.configs", "executorch")
    with exporter_errors("pte"), quiet(), refusals() as refused, without_idle_passes():
        edge = exir.to_edge_transform_and_lower(
            program,
            partitioner=[partitioner.XnnpackPartitioner()],
            transform_passes=configs.get_transform_passes(),
        )
        # Constants that went through an operator (the 3 and 6 of a hard sigmoid) are computed now instead of at
        # every inference; without it MobileNetV3-large runs 16 copies of constants outside its delegate.
        lowered = edge.to_executorch(exir.ExecutorchBackendConfig(do_quant_fusion_and_const_prop=True))
    return Exported(
        data=bytes(lowered.buffer),
        exporter_version=importlib.metadata.version("executorch"),
        operator_map=pte_operators(lowered, refused),
        **_delegation(lowered.exported_program().graph_module, {CONVERSION: 2} if conversions else {}),
    )


def _delegation(graph_module: Any, meant: Mapping[str, int]) -> dict[str, Any]:
    """Counts by ExecuTorch's own tool, of the graph as it was written. meant: what is outside on purpose."""
    with quiet():
        backend_debug = needs("executorch.devtools.backend_debug", "executorch")
    info = backend_debug.get_delegation_info(graph_module)
    operators = {op: item for op, item in info.delegation_by_operator.items() if op not in NOT_OPS}
    outside = {op: item.non_delegated for op, item in operators.items() if item.non_delegated}
    inside = sum(item.delegated for op, item in operators.items() if op not in NOT_WORK)
    work_outside = sum(
        max(0, count - meant.get(op, 0)) for op, count in outside.items() if op not in NOT_WORK
    )
    delegates, nodes_outside = info.num_delegated_subgraphs, sum(outside.values())
    notices = []
    if delegates != 1 or work_outside:
        notices.append(
            f"{delegates} XNNPACK delegates, {work_outside} operators outside: a property of how the network is "
            "written, and slower than one delegate"
        )
    return {
        "op_counts": {op: item.delegated + item.non_delegated for op, item in sorted(operators.items())},
        "delegates": delegates,
        "delegated_share": inside / (inside + work_outside) if inside + work_outside else 0.0,
        "nodes_outside": nodes_outside,
        "outside_ops": dict(sorted(outside.items())),
        "notices": tuple(notices),
    }


def require_one_delegate(exported: Exported) -> None:
    """A fused Finet lowers to one delegate and the node that picks its output. FinetDeployError otherwise.

    In fp16 there are two more nodes, which convert the input and the output.
    """
    conversions = 2 if exported.dtype == "float16" else 0
    outside = exported.nodes_outside
    if exported.delegates == 1 and outside is not None and outside <= 1 + conversions:
        return
    ops = ", ".join(f"{op} x {count}" for op, count in exported.outside_ops.items())
    raise FinetDeployError(
        f"fused Finet lowered to {exported.delegates} XNNPACK delegates with {exported.nodes_outside} nodes outside "
        f"({ops}), not to one",
        do="write pooling with keepdim=True and gates as 1x1 convolutions, or check the executorch version",
    )
