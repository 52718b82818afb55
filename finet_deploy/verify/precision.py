"""What a file of lower precision than fp32 must keep: limits of its own, stated in the certificate.

8 bits cannot follow a network everywhere: a range that fits photographs clips an input ten times as large, and one
rare photograph in a hundred too. So a file of lower precision is judged by its median on the photographs, which in
int8 come from the source that it was calibrated on and were not used for it, and by their classes. Its error on every
input is recorded, and holds from then on: on another machine the same file may be no more than
`Limits.lower_multiple` times as far off, or `Limits.lower_floor`, whichever is more.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from finet_deploy.errors import FinetDeployError
from finet_deploy.verify.certificate import Certificate, Check, check_outputs, fp32_growth, number
from finet_deploy.verify.compare import Comparison
from finet_deploy.verify.limits import Limits

__all__ = ["PHOTO", "artifact_limits", "judge_artifact"]

PHOTO = "photo"  # golden inputs whose names begin so are photographs


def judge_artifact(
    name: str,
    comparison: Comparison,
    limits: Limits | None = None,
    *,
    certificate: Certificate | None = None,
    dtype: str = "float32",
) -> Check:
    """Judge one exported file, run by its own runtime, against the float64 truth. `name`: its format.

    certificate: the model's, made by `verify`. It knows the inputs on which fp32 itself is less exact. dtype: the
    file's. Below fp32 the photographs are judged, and must be there; a class may change where the truth nearly ties.
    """
    limits = limits or Limits()
    check = f"artifact/{name}"
    if dtype == "float32":
        growth = fp32_growth(certificate, limits) if certificate is not None else {}
        return check_outputs(check, comparison, limit=limits.artifact, growth=growth)
    return _judge_lower(check, comparison, limits, certificate, dtype)


def _judge_lower(
    check: str, comparison: Comparison, limits: Limits, certificate: Certificate | None, dtype: str
) -> Check:
    least = limits.sqnr_db(dtype)
    photos = [row for row in comparison.inputs if row.name.startswith(PHOTO)]
    # An output without any error has no figure: better than all others.
    sqnr = {row.name: math.inf if row.sqnr_db is None else row.sqnr_db for row in photos}
    middle = statistics.median(sqnr.values()) if sqnr else -math.inf
    worst = min(sqnr, key=lambda name: sqnr[name], default=None)
    changed = [row.name for row in photos if row.top1 == "differs"]
    known = {} if certificate is None else _measured(certificate, check)
    further = _further_off(comparison, known, limits, dtype)
    found = [f"{problem.name}: {problem.found}" for problem in comparison.problems]
    if not photos:
        found.append("no photograph to judge")
    else:
        found.append(
            f"{dtype}: SQNR {middle:.1f} dB (median of {len(photos)} photographs; limit {least:g} dB), worst "
            f"{sqnr[worst or '']:.1f} dB on {worst}"
        )
    found += [f"top-1 class differs on {', '.join(changed)}"] if changed else []
    found += [f"further off than when it was exported: {', '.join(further)}"] if further else []
    return Check(
        name=check,
        stage="artifact",
        passed=comparison.comparable and middle >= least and not changed and not further,
        message="; ".join(found),
        figures={
            "dtype": dtype,
            "median_sqnr_db": number(middle),
            "min_sqnr_db": number(sqnr[worst]) if worst else None,
            "worst_input": worst,
            "top1_agreement": Comparison(inputs=tuple(photos)).top1_agreement,
            "judged": list(sqnr),
            "problems": [f"{problem.name}: {problem.found}" for problem in comparison.problems],
        },
        limits={"median_sqnr_db": least, "photographs_with_another_class": 0},
        inputs=comparison.inputs,
    )


def _measured(certificate: Certificate, check: str) -> dict[str, float]:
    """Input -> the file's error when it was exported; empty when this certificate is the one being made."""
    try:
        return {row.name: row.relative_error for row in certificate.check(check).inputs}
    except KeyError:
        return {}


def _further_off(comparison: Comparison, known: dict[str, float], limits: Limits, dtype: str) -> list[str]:
    bounds = {name: _grown(error, limits, dtype) for name, error in known.items()}
    return [row.name for row in comparison.inputs if not row.relative_error <= bounds.get(row.name, math.inf)]


def _grown(error: float, limits: Limits, dtype: str) -> float:
    return max(limits.lower_floor(dtype), limits.lower_multiple * error)


def artifact_limits(
    name: str, dtype: str, certificate: Certificate, inputs: Sequence[str], limits: Limits | None = None
) -> dict[str, float]:
    """Golden input -> the largest relative error that the file may have on it, on any machine.

    name: the file's format. Below fp32 a limit is a multiple of the file's own error: FinetDeployError when the
    certificate does not know the file, or not what it was off on one of the inputs.
    """
    limits = limits or Limits()
    if dtype == "float32":
        growth = fp32_growth(certificate, limits)
        return {key: limits.artifact * growth.get(key, 1.0) for key in inputs}
    known = _measured(certificate, f"artifact/{name}")
    for key in inputs:
        if key not in known:
            raise FinetDeployError(
                f"the certificate has no figures of the {dtype} .{name} file on input {key!r}",
                do="export the bundle again",
            )
    return {key: _grown(known[key], limits, dtype) for key in inputs}
