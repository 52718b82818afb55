"""What a file of lower precision than fp32 must keep: limits of its own, stated in the certificate.

8 bits cannot follow a network everywhere: a range that fits photographs clips an input ten times as large. So a
file of lower precision is judged on the photographs, which come from the source that it was calibrated on and were
not used for it. Its errors on the other inputs are recorded, and hold from then on: on another machine the same file
may be no more than `Limits.unjudged_multiple` times as far off.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

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
    least = limits.sqnr_db(dtype)
    photos = [row for row in comparison.inputs if row.name.startswith(PHOTO)]
    judged = Comparison(inputs=tuple(photos), problems=comparison.problems)
    verdict = check_outputs(check, judged, limit=limits.relative(dtype))
    worst = min((row.sqnr_db for row in photos if row.sqnr_db is not None), default=None)
    shown = "equal" if worst is None else f"{worst:.1f} dB"
    message = f"{verdict.message} ({dtype}: SQNR of the worst photograph {shown}, limit {least:g} dB)"
    known = {} if certificate is None else _measured(certificate, check)
    further = _further_off(comparison, known, limits)
    if further:
        message += f"; {further[0]}: further off than when it was exported"
    return msgspec.structs.replace(
        verdict,
        passed=verdict.passed is True and not further,
        message=message,
        figures={
            **verdict.figures,
            "dtype": dtype,
            "not_judged": [row.name for row in comparison.inputs if row not in photos],
            "min_sqnr_db": number(worst),
        },
        limits={"min_sqnr_db": least, **verdict.limits},
        inputs=comparison.inputs,
    )


def _measured(certificate: Certificate, check: str) -> dict[str, float]:
    """Input -> the file's error when it was exported; empty when this certificate is the one being made."""
    try:
        return {row.name: row.relative_error for row in certificate.check(check).inputs}
    except KeyError:
        return {}


def _further_off(comparison: Comparison, known: dict[str, float], limits: Limits) -> list[str]:
    bounds = {name: _grown(error, limits) for name, error in known.items() if not name.startswith(PHOTO)}
    return [
        row.name for row in comparison.inputs if not row.relative_error <= bounds.get(row.name, float("inf"))
    ]


def _grown(error: float, limits: Limits) -> float:
    return max(limits.artifact, limits.unjudged_multiple * error)


def artifact_limits(
    name: str, dtype: str, certificate: Certificate, inputs: Iterable[str], limits: Limits | None = None
) -> dict[str, float]:
    """Golden input -> the largest relative error that the file may have on it, on any machine.

    name: the file's format. Below fp32: an input that was never measured has no limit, and is not in the answer.
    """
    limits = limits or Limits()
    if dtype == "float32":
        growth = fp32_growth(certificate, limits)
        return {key: limits.artifact * growth.get(key, 1.0) for key in inputs}
    try:
        stated = certificate.check(f"artifact/{name}").limits.get("max_error", limits.relative(dtype))
    except KeyError as error:
        raise FinetDeployError(
            f"the certificate has no check of the {dtype} .{name} file", do="export the bundle again"
        ) from error
    known = _measured(certificate, f"artifact/{name}")
    return {
        key: stated if key.startswith(PHOTO) else _grown(known[key], limits) for key in inputs if key in known
    }
