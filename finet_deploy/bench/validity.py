"""Whether a visit counts. Derived from its records each time they are read, so that no verdict can be forged."""

from __future__ import annotations

from finet_deploy.bench.protocol import End, First, Invalid, Load, Row, Start, Warmup
from finet_deploy.bench.records import VisitResult

__all__ = ["visit_problem"]


def visit_problem(result: VisitResult, row: Row) -> str | None:
    """Why the visit must not count, in one line; `None` when it does."""
    invalid = result.find(Invalid)
    if invalid is not None:
        return f"{invalid.reason} (in phase {invalid.phase})"
    start, load, end = result.find(Start), result.find(Load), result.find(End)
    if start is None or load is None or end is None or not result.find(First) or not result.find(Warmup):
        return "the records are incomplete"
    if start.artifact_sha256 != row.artifact.sha256:
        return "another file was run than the job names (SHA-256 differs)"
    if load.runtime != row.artifact.runtime:
        return f"run by {load.runtime} instead of {row.artifact.runtime}"
    if load.threads != row.threads:
        return f"asked for {row.threads} threads, the runtime reports {load.threads}"
    samples = len(result.latencies_ns)
    if samples == 0 or samples != end.runs or 0 in result.latencies_ns:
        return f"{samples} usable samples, {end.runs} runs reported"
    for name, limit in row.golden.output_limits.items():
        error = end.output_errors.get(name)
        if error is None or not error <= limit:
            shown = "not a number" if error is None else f"{error:.1e}"
            return f"wrong output on {name!r}: norm-relative error {shown}, limit {limit:.1e}"
    return None
