"""The time that a search may take, and how it is spent."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from finet_deploy.errors import UsageError

__all__ = ["BUILD_SHARE", "Budget", "format_seconds", "parse_seconds"]

BUILD_SHARE = 0.5  # of the budget may go into exporting: what is exported has to be measured too
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_seconds(text: str) -> float:
    """`90s`, `10m`, `1.5h`, or seconds. UsageError for anything else, and for nothing."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)\s*([smh]?)", text.strip())
    seconds = float(found[1]) * UNITS[found[2] or "s"] if found else 0.0
    if not seconds > 0:
        raise UsageError(f"--budget {text!r} is no length of time", do="give one like 90s, 10m or 1h")
    return seconds


def format_seconds(seconds: float) -> str:
    """`42 s`, `9 min 30 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class Budget:
    """A clock that runs from its making. What took how long is remembered by kind, to judge what still fits."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self._clock = seconds, clock
        self._start = clock()
        self._longest: dict[str, float] = {}
        self._spent: dict[str, tuple[float, int]] = {}

    @property
    def used(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._start

    @property
    def left(self) -> float:
        """Seconds until the end; never negative."""
        return max(0.0, self.seconds - self.used)

    def timed(self, kind: str) -> Callable[[], None]:
        """Begin a piece of work of this kind; call what is returned when it is done."""
        begin = self._clock()

        def done() -> None:
            took = self._clock() - begin
            total, count = self._spent.get(kind, (0.0, 0))
            self._spent[kind] = total + took, count + 1
            self._longest[kind] = max(took, self._longest.get(kind, 0.0))

        return done

    def longest(self, kind: str, otherwise: float) -> float:
        """Seconds of the longest piece of this kind so far."""
        return self._longest.get(kind, otherwise)

    def mean(self, kind: str, otherwise: float) -> float:
        """Mean seconds of the pieces of this kind so far."""
        total, count = self._spent.get(kind, (0.0, 0))
        return total / count if count else otherwise

    def fits(self, seconds: float, *, share: float = 1.0) -> bool:
        """Whether a piece of work that takes this long would end within the share of the budget."""
        return self.used + seconds <= share * self.seconds
