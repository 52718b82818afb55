"""Which candidates no other one beats in everything that matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["dominates", "pareto_front"]


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether `a` is nowhere worse than `b` and somewhere better. Higher is better; of equal length, no NaN."""
    return all(x >= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)


def pareto_front(points: Mapping[str, Sequence[float]]) -> frozenset[str]:
    """The names that nobody dominates. Equal points are all in it, or none."""
    return frozenset(
        name
        for name, point in points.items()
        if not any(dominates(other, point) for other in points.values())
    )
