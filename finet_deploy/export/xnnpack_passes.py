"""Leaves out what XNNPACK's backend would do to a network in vain: six seconds of a processor and a tenth of the rest.

Its seventeen passes trace the graph anew each, whatever they find in it, and two look for attention and bilinear
resizing by example graphs that every process makes first. Those in `WORKS_ON` change nothing in a graph without their
operators.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from finet_deploy.export.exported import needs

__all__ = ["WORKS_ON", "without_idle_passes"]

_BATCH_NORMS = ("aten.native_batch_norm.default", "aten._native_batch_norm_legit_no_training.default")
# A pass -> names, or parts of names, of the operators that it changes, or needs in what it looks for; executorch 1.5.
WORKS_ON: dict[str, tuple[str, ...]] = {
    "ConvertToUpsampleBilinear2d": ("aten.upsample_bilinear2d.vec",),
    "ConvertToSDPAPass": ("aten._softmax.default",),
    "PropagateCustomMetaPass": ("quantize",),
    "FuseBatchNormPass": _BATCH_NORMS,
    "DecomposeBatchNorm": _BATCH_NORMS,
    "DecomposeConcatenate": ("aten.cat.default",),
    "RemoveGetItemPass": ("aten.max_pool2d_with_indices.default", "aten.max.dim"),
    "PReLUReshapePass": ("aten._prelu_kernel.default",),
}


@contextlib.contextmanager
def without_idle_passes() -> Iterator[None]:
    """While a network is lowered: these passes run where one of their operators is in the graph."""
    passes = needs("executorch.backends.xnnpack._passes", "executorch")
    own = {name: getattr(passes, name) for name in WORKS_ON if hasattr(passes, name)}
    try:
        for name, item in own.items():
            setattr(passes, name, _where_it_works(item, WORKS_ON[name]))
        yield
    finally:
        for name, item in own.items():
            setattr(passes, name, item)


def _where_it_works(item: Any, operators: tuple[str, ...]) -> Any:
    result = needs("torch.fx.passes.infra.pass_base", "executorch").PassResult

    class WhereItWorks(item):
        def call(self, graph_module: Any) -> Any:
            return (
                super().call(graph_module) if _calls(graph_module, operators) else result(graph_module, False)
            )

    return WhereItWorks


def _calls(graph_module: Any, operators: tuple[str, ...]) -> bool:
    """Whether the graph has one of these operators. The exporter wraps ATen's: `_op` is the one inside."""
    names = {
        str(getattr(node.target, "_op", node.target))
        for node in graph_module.graph.nodes
        if node.op == "call_function"
    }
    return any(operator in name for name in names for operator in operators)
