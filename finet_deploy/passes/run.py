"""Running passes one after another, with a certificate for each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import torch
from torch import Tensor, fx, nn

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.passes.cleanup import fold_affine, fold_constants, pooling, remove_idle, splits_to_slices
from finet_deploy.passes.gates import gates_as_convolutions, hard_sigmoid
from finet_deploy.passes.ir import plain, refresh, trace
from finet_deploy.passes.kernels import CORES, DEFAULT_CORE
from finet_deploy.passes.names import PASS_NAMES
from finet_deploy.passes.shapes import pad_channels, split_pixels
from finet_deploy.passes.shuffle import channel_shuffle
from finet_deploy.passes.standardize import fold_standardization
from finet_deploy.verify import Check, Limits, check_outputs, compare
from finet_deploy.verify.forward import as_dtype, ordinary_inputs

__all__ = ["PASSES", "Applied", "Pass", "PassEntry", "apply_passes", "apply_plans"]

MAX_INPUTS = 3  # of the ordinary ones; the written files are judged on all inputs

Rewrite = Callable[[fx.GraphModule, str], list[str]]


@dataclass(frozen=True)
class Pass:
    """A named rewrite. `rewrite(graph, core)` edits the graph in place and says what it changed, a line each."""

    name: str
    rewrite: Rewrite

    @property
    def summary(self) -> str:
        """What it does, in one line."""
        return PASS_NAMES[self.name]


def _whatever_core(rewrite: Callable[[fx.GraphModule], list[str]]) -> Rewrite:
    return lambda module, _core: rewrite(module)


PASSES = {
    item.name: item
    for item in (
        Pass("fold-constants", _whatever_core(fold_constants)),
        Pass("remove-idle", _whatever_core(remove_idle)),
        Pass("fold-standardization", _whatever_core(fold_standardization)),
        Pass("fold-affine", _whatever_core(fold_affine)),
        Pass("pooling", _whatever_core(pooling)),
        Pass("gates-as-convolutions", _whatever_core(gates_as_convolutions)),
        Pass("hard-sigmoid", _whatever_core(hard_sigmoid)),
        Pass("split-to-slices", _whatever_core(splits_to_slices)),
        Pass("channel-shuffle", _whatever_core(channel_shuffle)),
        Pass("pad-channels", pad_channels),
        Pass("split-pixels", split_pixels),
    )
}


class PassEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One pass that changed the network. max_error: norm-relative, float64, after against before."""

    name: str
    changes: tuple[str, ...]
    max_error: float


@dataclass(frozen=True)
class Applied:
    """The rewritten network in fp32 (a graph module), what changed it, and the evidence, a check a pass."""

    model: nn.Module
    entries: tuple[PassEntry, ...]
    checks: tuple[Check, ...]


def apply_passes(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    names: Sequence[str],
    *,
    core: str = DEFAULT_CORE,
    limits: Limits | None = None,
    passes: Mapping[str, Pass] = PASSES,
) -> Applied:
    """Rewrite a copy of `model` by the passes of these names, each judged before the next one runs.

    model: in eval mode, fp32, static. inputs: name -> (1, C, H, W) fp32.
    A pass that finds nothing to do leaves no entry. One whose certificate does not pass leaves a check that says so:
    the caller decides. Raises UsageError for an unknown pass or core, FinetDeployError when the network cannot be
    traced or a rewritten graph does not run.
    """
    return apply_plans(model, inputs, {"": names}, core=core, limits=limits, passes=passes)[""]


def apply_plans(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    plans: Mapping[str, Sequence[str]],
    *,
    core: str = DEFAULT_CORE,
    limits: Limits | None = None,
    passes: Mapping[str, Pass] = PASSES,
) -> dict[str, Applied]:
    """`apply_passes` for several lists of passes (of files' formats, by name); the network is traced once.

    Checks are called `pass/<name of the list>/<pass>`. Raises as `apply_passes` does.
    """
    if core not in CORES:
        raise UsageError(f"unknown core {core!r}", do=f"use one of {', '.join(CORES)}")
    chosen = {name: inputs[name].double() for name in (ordinary_inputs(inputs) or list(inputs))[:MAX_INPUTS]}
    x = next(iter(inputs.values()))
    traced = trace(as_dtype(model, torch.float64), x.double())
    started = refresh(plain(traced), x.double())
    truth = _outputs(started, chosen, "tracing")
    return {
        plan: _apply(
            # A copy: a list of passes changes the type of its weights at the end.
            refresh(plain(copy.deepcopy(traced)), x.double()),
            x,
            chosen,
            truth,
            [passes[name] for name in names],
            core,
            limits or Limits(),
            "/".join(filter(None, ("pass", plan))),
        )
        for plan, names in plans.items()
    }


def _apply(
    graph: fx.GraphModule,
    x: Tensor,
    inputs: Mapping[str, Tensor],
    truth: dict[str, Tensor],
    passes: Sequence[Pass],
    core: str,
    limits: Limits,
    prefix: str,
) -> Applied:
    """One list of passes. graph: edited. inputs, truth: float64, what it is judged on and its outputs there."""
    entries, checks = [], []
    for item in passes:
        changes = item.rewrite(graph, core)
        if not changes:
            continue
        refresh(graph, x.double())
        found = _outputs(graph, inputs, item.name)
        comparison = compare(truth, found)
        check = check_outputs(f"{prefix}/{item.name}", comparison, limit=limits.algebra_fp64, stage="passes")
        checks.append(check)
        entries.append(PassEntry(name=item.name, changes=tuple(changes), max_error=comparison.max_error))
        truth = found
    return Applied(refresh(graph.float(), x), tuple(entries), tuple(checks))


def _outputs(graph: fx.GraphModule, inputs: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """One input at a time: reshapes in the graph hold the batch of one."""
    try:
        with torch.inference_mode():
            return {key: graph(x.clone()) for key, x in inputs.items()}
    except RuntimeError as error:
        raise FinetDeployError(
            f"the network does not run after {name}: {str(error).splitlines()[0][:200]}",
            do="export it with --passes none, and report this",
        ) from error
