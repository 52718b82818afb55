"""A certificate in plain lines for people, each metric explained in one sentence."""

from __future__ import annotations

from finet_deploy.verify.certificate import Certificate, Check

__all__ = ["METRICS", "figure_lines", "summary_lines"]

METRICS = {
    "relative error": "norm of the difference over norm of the reference; 1e-6 is one part in a million",
    "SQNR": "the same as a signal-to-noise ratio in decibels: 20 dB more is an error ten times smaller",
    "top-1": "share of inputs whose most likely class is the same in both forms of the network",
    "float64 truth": "the unfused network run in double precision, which every other form is held against",
}


def summary_lines(certificate: Certificate, *, explain: bool = True) -> list[str]:
    """The verdict, one line a check, and (with `explain`) what each metric means."""
    made = sum(check.passed is not None for check in certificate.checks)
    lines = [f"{certificate.subject}: {'passed' if certificate.passed else 'FAILED'} ({made} checks made)"]
    for check in certificate.checks:
        if check.passed is None:
            lines.append(f"  not run  {check.name}: {check.reason or check.message}")
        else:
            lines.append(f"  {'pass' if check.passed else 'FAIL'}     {check.name}: {check.message}")
    lines += [f"  FAIL     {name}: this check was not made" for name in certificate.missing]
    if explain:
        lines += [f"  {metric}: {meaning}" for metric, meaning in METRICS.items()]
    return lines


def figure_lines(check: Check) -> list[str]:
    """`name = value` for every figure and limit of a check, then one line an input."""
    lines = [f"{name} = {_text(value)}" for name, value in check.figures.items()]
    lines += [f"limit {name} = {_text(value)}" for name, value in check.limits.items()]
    for row in check.inputs:
        sqnr = "" if row.sqnr_db is None else f", SQNR {row.sqnr_db:.1f} dB"
        kind = "absolute" if row.absolute else "relative"
        top1 = f", top-1 {row.top1}" if row.top1 else ""
        lines.append(f"input {row.name}: {kind} error {row.relative_error:.3g}{sqnr}{top1}")
    return lines


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "; ".join(value) if isinstance(value, list) else str(value)
