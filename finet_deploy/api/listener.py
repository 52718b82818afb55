"""Who is told what long work does: the command line's console, or nobody."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from finet_deploy.bench.run import VisitDone

__all__ = ["Listener", "Silent", "VisitProgress"]


class Listener(Protocol):
    """What long work tells while it goes on. Derive from `Silent` and override what you want to hear."""

    def note(self, text: str) -> None:
        """A step that was taken."""

    def warn(self, text: str) -> None:
        """What should not be missed: a device that failed, a phone that was left out."""

    def progress(self, title: str, total: int) -> AbstractContextManager[Callable[[str], None]]:
        """A callback that is called once a step, `total` times, with what the step does."""


class Silent:
    """Warnings go to `warnings.warn`, the rest is not said."""

    def note(self, text: str) -> None:
        """Nothing."""

    def warn(self, text: str) -> None:
        """As a `UserWarning`."""
        warnings.warn(text, stacklevel=3)

    @contextlib.contextmanager
    def progress(self, title: str, total: int) -> Iterator[Callable[[str], None]]:
        """A callback that does nothing."""
        yield lambda step: None


class VisitProgress:
    """Progress of a benchmark: told after each visit, it learns the total with the first one."""

    def __init__(self, listener: Listener) -> None:
        self._listener, self._steps = listener, contextlib.ExitStack()
        self._step: Callable[[str], None] | None = None

    def __call__(self, visit: VisitDone) -> None:
        if self._step is None:
            total = visit.total - visit.done + 1
            self._step = self._steps.enter_context(self._listener.progress("measure", total=total))
        runtime = visit.row.artifact.runtime
        text = f"round {visit.visit.round + 1}: {visit.row.label} on {runtime}"
        self._step(text if visit.problem is None else f"{text}: INVALID, {visit.problem}")

    def __enter__(self) -> VisitProgress:
        return self

    def __exit__(self, *error: object) -> None:
        self._steps.close()
