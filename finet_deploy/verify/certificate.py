"""The certificate: what was checked, with which figures, against which limits, and the verdict.

It is a record, not a log: everything in it is a figure of this model, so that the same model gives the same
certificate (no dates, no durations).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from finet_deploy.errors import FinetDeployError
from finet_deploy.verify.compare import Comparison, InputComparison
from finet_deploy.verify.limits import Limits

__all__ = [
    "CONDITIONING",
    "Certificate",
    "Check",
    "InputSummary",
    "REQUIRED",
    "check_outputs",
    "fp32_growth",
    "number",
]

SCHEMA_VERSION = 1
CONDITIONING = "conditioning/fp32"  # the check whose rows are the unfused fp32 net's own errors
# What `verify` checks of every network, whatever it is. A certificate without one of these is not whole.
REQUIRED = (
    "preconditions",
    CONDITIONING,
    "algebra/fp64",
    "deploy/weights",
    "deploy/outputs_fp64",
    "fp32/no_worse",
    "normalization/left",
    "sensitivity/inputs",
    "sensitivity/zeroed_kernel",
    "sensitivity/dropped_bias",
    "sensitivity/swapped_groups",
    "sensitivity/ignored_eps",
    "sensitivity/flipped_mean",
    "contract/original_unchanged",
    "contract/idempotent",
)

Figure = bool | int | float | str | None | list[str]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One check. `passed` is None when it was not run; `reason` then says why.

    A check that was not run fails the certificate unless it is `optional`: the case does not arise for this
    model, or another check stands in for it.
    """

    name: str
    stage: str
    passed: bool | None
    message: str
    reason: str | None = None
    optional: bool = False
    figures: dict[str, Figure] = {}
    limits: dict[str, float] = {}
    inputs: tuple[InputComparison, ...] = ()

    @property
    def acceptable(self) -> bool:
        """Passed, or rightly not run."""
        return self.passed is True or (self.passed is None and self.optional and bool(self.reason))


class InputSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What one input was: name, shape, dtype, SHA-256 of its values, and their range."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    sha256: str
    minimum: float
    maximum: float


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence that two forms of a network are the same function.

    subject: which model. expected: the names of the checks that had to be made. versions: of the libraries.
    """

    schema_version: int = SCHEMA_VERSION
    subject: str
    expected: tuple[str, ...]
    checks: tuple[Check, ...]
    versions: dict[str, str] = {}
    inputs: tuple[InputSummary, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """Checks that had to be made and are not here."""
        made = {check.name for check in self.checks}
        return tuple(name for name in self.expected if name not in made)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed, or were left out without leave."""
        return tuple(check for check in self.checks if not check.acceptable)

    @property
    def passed(self) -> bool:
        """Every check passed and none is silently missing; never true of an empty certificate."""
        some = any(check.passed for check in self.checks)
        return some and bool(self.expected) and not self.missing and not self.failures

    def check(self, name: str) -> Check:
        """The check of this name; KeyError when it was not made."""
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(name)

    def to_json_object(self) -> dict[str, Any]:
        """Plain dicts and lists, with the verdict beside them for readers that cannot work it out."""
        return {"passed": self.passed, **msgspec.to_builtins(self)}

    @classmethod
    def from_json_object(cls, data: Any) -> Certificate:
        """Read what `to_json_object` wrote. Raises FinetDeployError when it is not a certificate of ours.

        The verdict is worked out again: a file that says `passed` over failed checks is refused.
        """
        if not isinstance(data, Mapping):
            raise FinetDeployError("not a certificate: no JSON object", do="export the bundle again")
        version = data.get("schema_version")
        if version != SCHEMA_VERSION or isinstance(version, bool):
            raise FinetDeployError(
                f"certificate has schema_version {version!r}, this program reads {SCHEMA_VERSION}",
                do="use the finet-deploy version that wrote it, or export the bundle again",
            )
        fields = {key: value for key, value in data.items() if key != "passed"}
        try:
            certificate = msgspec.convert(fields, type=cls)
        except msgspec.ValidationError as error:
            raise FinetDeployError(f"not a certificate: {error}", do="export the bundle again") from error
        if data.get("passed") is not certificate.passed:
            raise FinetDeployError(
                f"certificate says passed={data.get('passed')!r}, its checks say {certificate.passed}",
                do="do not trust this file: verify the model again",
            )
        return certificate


def number(value: float | None) -> float | None:
    """A figure for JSON, which has no infinities: None in their place."""
    return value if value is not None and math.isfinite(value) else None


def check_outputs(
    name: str,
    comparison: Comparison,
    *,
    limit: float,
    growth: Mapping[str, float] = MappingProxyType({}),
    stage: str | None = None,
) -> Check:
    """Judge a comparison: every input within `limit`, and no top-1 class changed except in a tie.

    growth: input -> factor (1 or more) by which its limit grows, see `Limits`; each one that does
    is listed in the check's limits. stage: default, the part of `name` before the first slash.
    """
    grown = {row.name: limit * max(1.0, growth.get(row.name, 1.0)) for row in comparison.inputs}
    over = [row for row in comparison.inputs if not row.relative_error <= grown[row.name]]
    changed = [row.name for row in comparison.inputs if row.top1 == "differs"]
    passed = comparison.comparable and not over and not changed
    return Check(
        name=name,
        stage=stage or name.split("/")[0],
        passed=passed,
        message=_outputs_message(comparison, grown, changed),
        figures={
            "worst_input": comparison.worst_input,
            "max_error": number(comparison.max_error),
            "min_sqnr_db": number(comparison.min_sqnr_db),
            "top1_agreement": comparison.top1_agreement,
            "problems": [f"{problem.name}: {problem.found}" for problem in comparison.problems],
        },
        limits={"max_error": limit}
        | {f"max_error on {name}": value for name, value in grown.items() if value > limit},
        inputs=comparison.inputs,
    )


def _outputs_message(comparison: Comparison, limits: Mapping[str, float], changed: Iterable[str]) -> str:
    if comparison.problems:
        first = comparison.problems[0]
        others = f" (and {len(comparison.problems) - 1} more)" if len(comparison.problems) > 1 else ""
        return f"input {first.name}: {first.found}{others}"
    if not comparison.inputs:
        return "no outputs to compare"
    worst = max(comparison.inputs, key=lambda row: row.relative_error / limits[row.name])
    kind = "absolute error (the reference is zero)" if worst.absolute else "relative error"
    text = f"worst {kind} {worst.relative_error:.2g} on input {worst.name}, limit {limits[worst.name]:g}"
    names = ", ".join(changed)
    return f"{text}; top-1 class differs on {names}" if names else text


def fp32_growth(certificate: Certificate, limits: Limits) -> dict[str, float]:
    """Extreme input -> factor on its fp32 limits, from the unfused fp32 net's own errors in the certificate."""
    try:
        check = certificate.check(CONDITIONING)
    except KeyError:
        return {}
    grown, errors = check.figures.get("ill_conditioned"), Comparison(inputs=check.inputs).typical_errors()
    names = grown if isinstance(grown, list) else []
    return {name: limits.fp32_growth(errors[name]) for name in names if name in errors}
