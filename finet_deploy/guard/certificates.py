"""A stored certificate judged again: its verdicts must follow from its own figures, under limits that nobody softened.

A certificate is a text file beside what it certifies. Its hash shows that nobody edited it by accident, not that its
figures are good. What can be worked out again without the network is; the files themselves are run by other checks.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from finet_deploy.export.bundle import Golden
from finet_deploy.verify.certificate import CONDITIONING, REQUIRED, Certificate, Check
from finet_deploy.verify.limits import Limits

__all__ = ["missing_checks", "ordinary_names", "rejudged"]

# A limit of another reading of the same number by at most this much is the same.
SLACK = 1 + 1e-9
# Extreme inputs (zeros, large, denormal) lie this far from the median deviation of the others; see `ordinary_names`.
ORDINARY_FACTOR = 5.0


def rejudged(stored: Check, golden: Golden) -> list[str]:
    """What speaks against a check of the certificate; empty when its figures keep limits that are no softer than ours.

    golden: the bundle's tensors, which show whether an input whose limits grew is an extreme one.
    """
    if not stored.acceptable:
        return [stored.reason or stored.message]
    if stored.passed is None:
        return []
    found = [*_error_limits(stored), *_least_limits(stored)]
    if stored.name == CONDITIONING:
        found += _grown(stored, golden)
    return found


def _strictest(name: str, dtype: object) -> float | None:
    """The largest error that our own limits allow in a check; None where it is judged by something else."""
    limits = Limits()
    if name.startswith(("algebra/", "pass/")):
        return limits.algebra_fp64
    if name.startswith("artifact/"):
        return limits.artifact if dtype in (None, "float32") else None
    return limits.fp32 if name in ("fp32/no_worse", "deploy/outputs_fp64") else None


def _error_limits(stored: Check) -> Iterable[str]:
    ours = _strictest(stored.name, stored.figures.get("dtype"))
    if ours is None:
        return
    stated = stored.limits.get("max_error")
    if stated is None or not stated <= ours * SLACK:
        yield f"the certificate's limit is {stated}, not {ours:g}: it was softened"
        return
    if not stored.inputs:
        yield "the certificate names no input that was compared"
    for row in stored.inputs:
        limit = stored.limits.get(f"max_error on {row.name}", stated)
        if not row.relative_error <= limit:
            yield f"input {row.name}: the certificate's own error {row.relative_error:.2g} is above its limit {limit:g}"
        if row.top1 == "differs":
            yield f"input {row.name}: another class"
    problems = stored.figures.get("problems")
    if isinstance(problems, list) and problems:
        yield f"an output that could not be compared: {problems[0]}"


def _least_limits(stored: Check) -> Iterable[str]:
    """Figures that must be large: distances and errors of broken fuses."""
    if stored.name == "sensitivity/inputs":
        limits = Limits()
        needed = limits.sensitivity_factor * limits.fp32
        if not _number(stored, "smallest_distance") >= needed / SLACK:
            yield f"outputs of different inputs are {stored.figures.get('smallest_distance')} apart, needed {needed:g}"
    elif "rejected_above" in stored.limits and stored.figures.get("error") is not None:
        if not _number(stored, "error") > stored.limits["rejected_above"]:
            yield f"a broken fuse is {stored.figures['error']} off, which its limit does not reject"
    elif "median_sqnr_db" in stored.limits:
        if not _number(stored, "median_sqnr_db", empty=float("inf")) >= stored.limits["median_sqnr_db"]:
            found, least = stored.figures["median_sqnr_db"], stored.limits["median_sqnr_db"]
            yield f"SQNR {found} dB is below the limit {least:g} dB"
    elif stored.name == "normalization/left" and stored.figures.get("left") != len(_kept(stored)):
        yield "normalizations are left that it does not list"


def _kept(stored: Check) -> list[str]:
    kept = stored.figures.get("kept")
    return kept if isinstance(kept, list) else []


def _number(stored: Check, name: str, empty: float = float("-inf")) -> float:
    value = stored.figures.get(name)
    return float(value) if isinstance(value, (int, float)) else empty


def _grown(stored: Check, golden: Golden) -> Iterable[str]:
    """fp32 limits grow on extreme inputs alone: on noise and pictures a network must hold them."""
    names = stored.figures.get("ill_conditioned")
    ordinary = ordinary_names(golden)
    for name in names if isinstance(names, list) else ():
        if name not in golden.inputs or name in ordinary:
            yield f"limits of input {name} were grown, which is no extreme input"


def ordinary_names(golden: Golden) -> list[str]:
    """Names of the golden inputs that are neither constant nor extreme, as `verify.forward.ordinary_names` has them."""
    deviations = {name: float(x.astype(np.float64).std()) for name, x in golden.inputs.items()}
    plausible = [value for value in deviations.values() if 1e-3 <= value <= 1e3]
    middle = float(np.median(plausible)) if plausible else float("inf")
    low, high = middle / ORDINARY_FACTOR, middle * ORDINARY_FACTOR
    return [name for name, value in deviations.items() if low <= value <= high]


def missing_checks(certificate: Certificate, formats: Iterable[str]) -> list[str]:
    """Names of checks that an export makes of every network, and of each of its files, and that are not there."""
    made = {check.name for check in certificate.checks}
    wanted = [*REQUIRED, *(f"artifact/{fmt}" for fmt in formats)]
    return [name for name in (*wanted, *certificate.expected) if name not in made]
