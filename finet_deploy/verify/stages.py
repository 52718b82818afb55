"""The checks of `verify`, one function each, but for those of the check itself (`sensitivity`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from finet_deploy.fuse import count_normalization
from finet_deploy.verify import weights
from finet_deploy.verify.certificate import CONDITIONING, Check, check_outputs, number
from finet_deploy.verify.compare import InputComparison, compare
from finet_deploy.verify.departure import first_departure
from finet_deploy.verify.forward import ordinary_names, run
from finet_deploy.verify.limits import Limits
from finet_deploy.verify.subject import Deploy, Subject

__all__ = [
    "Artifact",
    "check_algebra",
    "check_artifact",
    "check_conditioning",
    "check_deploy",
    "check_fp32",
    "check_normalization",
]

Artifact = Callable[[Tensor], Any]


def check_algebra(common: Subject) -> Check:
    outputs = run(common.fold, common.inputs, torch.float64)
    limit = common.limits.algebra_fp64
    growth = {name: common.limits.fp64_growth(common.own_errors[name]) for name in common.growth}
    check = check_outputs("algebra/fp64", compare(common.truth, outputs), limit=limit, growth=growth)
    return _with_departure(check, common, common.fold, limit)


def _with_departure(check: Check, common: Subject, candidate: nn.Module, limit: float) -> Check:
    """A failed check, with the first departing module of `candidate` (float64) in figures and message."""
    if check.passed:
        return check
    worst = check.figures.get("worst_input")
    x = common.inputs.get(str(worst), next(iter(common.inputs.values())))
    departure = first_departure(common.exact, candidate, x, limit)
    if departure is None:
        found = "no module of the same path departs: the fault lies between modules"
    else:
        found = f"first departing module: {departure.module}, error {departure.error:.2g}"
    figures = {**check.figures, "first_departing_module": departure.module if departure else None}
    return msgspec.structs.replace(check, message=f"{check.message}; {found}", figures=figures)


def check_deploy(common: Subject, forms: Deploy) -> list[Check]:
    """The given deploy model by its weights; by its float64 outputs where its structure is another one.

    Judged by outputs it may differ by the rounding of its weights, so the fp32 limit holds.
    """
    rounded, outputs = "deploy/weights", "deploy/outputs_fp64"
    if forms.given is None:
        reason = "no deploy model was given: the fuse itself is judged"
        return [_not_run(rounded, reason), _not_run(outputs, reason)]
    difference = weights.state_difference(forms.given.state_dict(), common.fold.state_dict())
    if difference is None:
        check = weights.check_rounded_once(forms.given, common.fold, common.order, common.limits)
        return [check, _not_run(outputs, "the weights are compared one by one")]
    limit = common.limits.fp32
    comparison = compare(common.truth, run(forms.exact, common.inputs, torch.float64))
    check = check_outputs(outputs, comparison, limit=limit, growth=common.growth)
    reason = f"the deploy model is built otherwise than the fold: {difference}"
    return [_not_run(rounded, reason), _with_departure(check, common, forms.exact, limit)]


def _not_run(name: str, reason: str) -> Check:
    return Check(
        name=name, stage=name.split("/")[0], passed=None, optional=True, message="not run", reason=reason
    )


def check_conditioning(common: Subject) -> Check:
    """What fp32 rounding alone does to the unfused net: the yardstick for every fp32 form.

    A class that it changes, or an error on an extreme input, is no fault of any other form; the limits grow.
    """
    cap = common.limits.fp32
    check = check_outputs(CONDITIONING, common.own, limit=cap)
    ordinary = ordinary_names(common.inputs)
    refused = [row.name for row in common.own.inputs if row.relative_error > cap and row.name in ordinary]
    grown = [name for name, factor in common.growth.items() if factor > 1.0]
    message = f"unfused net in fp32: worst relative error {common.own.max_error:.2g}"
    if not common.own.comparable:
        message = f"the unfused net fails in fp32: {check.message}; make this input smaller or leave it out"
    elif refused:
        message += f"; the network itself is too ill-conditioned on {', '.join(refused)}, limit {cap:g}"
    elif grown:
        message += f"; ill-conditioned, with larger limits: {', '.join(grown)}"
    return msgspec.structs.replace(
        check,
        passed=common.own.comparable and not refused,
        message=message,
        figures={**check.figures, "ill_conditioned": grown},
        limits={"max_error of ordinary inputs": cap},
    )


def check_fp32(common: Subject, forms: Deploy) -> Check:
    """The fp32 deploy net's error against the float64 truth, beside that of the unfused net in fp32."""
    limits, own = common.limits, common.own
    ours = compare(common.truth, run(forms.single, common.inputs, torch.float32))
    worse = [row for row in ours.inputs if not _no_worse(row, common.own_errors, limits)]
    check = check_outputs("fp32/no_worse", ours, limit=limits.fp32, growth=common.growth)
    message = f"{check.message}; unfused net {own.max_error:.2g}"
    if worse and ours.comparable:
        row = max(worse, key=lambda row: row.relative_error)
        message += (
            f"; input {row.name}: {row.relative_error:.2g} is above {limits.fp32_multiple:g} times "
            f"the unfused net's {common.own_errors.get(row.name, 0.0):.2g}"
        )
    check = msgspec.structs.replace(
        check,
        passed=check.passed is True and own.comparable and not worse,
        message=message,
        figures={**check.figures, "unfused_max_error": number(own.max_error)},
        limits={**check.limits, "multiple": limits.fp32_multiple, "multiple_floor": limits.fp32_floor},
    )
    return _with_departure(check, common, forms.exact, limits.fp32)


def _no_worse(row: InputComparison, own_error: Mapping[str, float], limits: Limits) -> bool:
    allowed = max(limits.fp32_multiple * own_error.get(row.name, 0.0), limits.fp32_floor)
    return row.relative_error <= allowed


def check_normalization(common: Subject, forms: Deploy) -> Check:
    """No normalization left, or each one that is left was kept by the fuse for a reason that is shown."""
    judged = forms.given if forms.given is not None else common.fold
    reasons: dict[str, str] = {}
    for source in (common.fold, judged):
        report = getattr(source, "fuse_report", None)
        reasons |= {kept.path: kept.reason for kept in report.kept} if report is not None else {}
    left = count_normalization(judged)
    unexplained = [path for path in left if path not in reasons]
    if unexplained:
        message = f"{len(unexplained)} normalizations left without a reason, first {unexplained[0]}"
    elif left:
        message = f"{len(left)} normalizations left, each for a stated reason"
    else:
        message = "no normalization left"
    return Check(
        name="normalization/left",
        stage="normalization",
        passed=not unexplained,
        message=message,
        figures={
            "left": len(left),
            "kept": [f"{path} ({kind}): {reasons.get(path, 'no reason')}" for path, kind in left.items()],
        },
        limits={"left_without_reason": 0},
    )


def check_artifact(name: str, artifact: Artifact, common: Subject) -> Check:
    outputs: dict[str, Any] = {}
    failed: str | None = None
    for key, x in common.inputs.items():
        try:
            outputs[key] = artifact(x.detach().clone())
        except Exception as error:  # noqa: BLE001  a runtime may raise anything: then the file does not run
            failed = f"input {key}: the runtime raised {type(error).__name__}: {' '.join(str(error).split())}"
            break
    check = check_outputs(
        f"artifact/{name}",
        compare(common.truth, outputs),
        limit=common.limits.artifact,
        growth=common.growth,
    )
    return check if failed is None else msgspec.structs.replace(check, passed=False, message=failed)
