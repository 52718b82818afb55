"""How figures are written: as many digits as their interval supports."""

from __future__ import annotations

import math

from finet_deploy.bench.statistics import Estimate

__all__ = ["decimals_for", "format_estimate", "format_significant"]


def decimals_for(half_width: float) -> int:
    """Decimal places at which an uncertainty shows two digits when it starts with 1 or 2, else one.

    As the Particle Data Group rounds: no digit is lost that means something, and none is shown that does not.
    """
    exponent = math.floor(math.log10(half_width))
    leading = half_width / 10.0**exponent
    return max(0, -exponent + (1 if leading < 3 else 0))


def format_significant(value: float | None, digits: int = 3) -> str:
    """`value` with this many significant digits and no exponent; a dash for nothing."""
    if value is None:
        return "–"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def format_estimate(estimate: Estimate | None) -> str:
    """`57.3 [56.8, 57.9]`; without an interval, three digits alone."""
    if estimate is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return format_significant(estimate.value)
    half_width = (estimate.high - estimate.low) / 2
    if half_width <= abs(estimate.value) * 1e-5:
        return f"{format_significant(estimate.value, 5)} [no spread]"
    decimals = decimals_for(half_width)
    return f"{estimate.value:.{decimals}f} [{estimate.low:.{decimals}f}, {estimate.high:.{decimals}f}]"
