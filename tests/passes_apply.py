"""Deploy passes applied to networks of tests, and how far off they are."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from finet_deploy.passes import (
    PASS_NAMES,
    PASSES,
    Applied,
    apply_passes,
    ir,
    shapes,
)
from finet_deploy.passes.kernels import Kernel, Kernels

LIMIT = 1e-12


@contextlib.contextmanager
def eager() -> Iterator[None]:
    """A core on which every padding pays, and every cut: so that the rewrites are tried where a core's would not."""

    def cut(conv: ir.Conv, table: Kernels) -> tuple[int, int] | None:
        H, W = ir.shape(conv.node)[2:]
        return (H // 2, W // 2) if min(H, W) > 1 else None

    table = Kernels(Kernel(6, 8, 1e6, 1), Kernel(1, 8, 0, 1), Kernel(4, 2, 1e9, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "kernels", lambda core: table)
        patch.setattr(shapes, "_best_cut", cut)
        yield


def rewritten(
    model: nn.Module, inputs: dict[str, Tensor], names: Any = None, core: str = "cortex-a76"
) -> Applied:
    applied = apply_passes(model.eval(), inputs, tuple(PASS_NAMES) if names is None else names, core=core)
    return applied


def error(applied: Applied, model: nn.Module, inputs: dict[str, Tensor]) -> float:
    """Norm-relative, in float64, of the whole chain; weights were rounded to fp32 in between."""
    truth, found = model.double(), copy.deepcopy(applied.model).double()
    with torch.no_grad():
        return max(
            float((found(x.double()) - truth(x.double())).norm() / truth(x.double()).norm())
            for x in inputs.values()
        )


def targets(applied: Applied) -> set[Any]:
    assert isinstance(applied.model, fx.GraphModule)
    return {node.target for node in applied.model.graph.nodes if node.op == "call_function"}


def errors(model: nn.Module, inputs: dict[str, Tensor], names: Sequence[str]) -> dict[str, float]:
    """Pass -> norm-relative error in float64, after against before, without the certificate's help.

    Passes that say that they changed nothing are left out, and must not have.
    """
    xs = [x.double() for x in inputs.values()]
    graph = ir.lower(model.eval().double(), xs[0])
    found = {}
    with torch.no_grad():
        before = [graph(x) for x in xs]
        for name in names:
            changes = PASSES[name].rewrite(graph, "cortex-a76")
            ir.refresh(graph, xs[0])
            after = [graph(x) for x in xs]
            if changes:
                found[name] = max(float((b - a).norm() / a.norm()) for a, b in zip(before, after))
            else:
                assert all(torch.equal(a, b) for a, b in zip(before, after))
            before = after
    return found
