"""How figures are written: as many digits as their interval supports."""

from __future__ import annotations

import math
from typing import NamedTuple

from finet_deploy.bench.statistics import Estimate

__all__ = ["Rounded", "decimals_for", "format_estimate", "format_significant", "round_estimate"]

PLAIN = (1e-9, 1e15)  # outside of these a figure is written with an exponent


def decimals_for(half_width: float) -> int:
    """Decimal places at which an uncertainty shows two digits when it starts with 1 or 2, else one.

    As the Particle Data Group rounds: no digit is lost that means something, and none is shown that does not.
    """
    exponent = math.floor(math.log10(half_width))
    leading = half_width / 10.0**exponent
    return max(0, -exponent + (1 if leading < 3 else 0))


class Rounded(NamedTuple):
    """An estimate in digits, all three to the same decimal place. low, high: None without an interval.

    Where the interval is too narrow to set the digits (less than 1e-5 of the value), all three are the value.
    """

    value: str
    low: str | None = None
    high: str | None = None


def format_significant(value: float | None, digits: int = 3) -> str:
    """`value` with this many significant digits and no exponent (of sensible sizes); a dash for nothing."""
    if value is None:
        return "–"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if not PLAIN[0] <= abs(value) < PLAIN[1]:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def round_estimate(estimate: Estimate) -> Rounded:
    """The digits that the interval supports; three significant ones without an interval."""
    low, high = estimate.low, estimate.high
    if low is None or high is None:
        return Rounded(format_significant(estimate.value))
    half_width = (high - low) / 2
    if half_width <= abs(estimate.value) * 1e-5:
        return Rounded(*[format_significant(estimate.value, 5)] * 3)
    if half_width < PLAIN[0] or abs(high) >= PLAIN[1]:
        return Rounded(*(format_significant(value, 5) for value in (estimate.value, low, high)))
    decimals = decimals_for(half_width)
    return Rounded(*(f"{value:.{decimals}f}" for value in (estimate.value, low, high)))


def format_estimate(estimate: Estimate | None) -> str:
    """`57.3 [56.8, 57.9]`; without an interval, three digits alone."""
    if estimate is None:
        return "–"
    value, low, high = round_estimate(estimate)
    if low is None:
        return value
    return f"{value} [no spread]" if value == low == high else f"{value} [{low}, {high}]"
