"""Training as a person follows it: a bar on a terminal, a line an epoch (and a minute) in a pipe."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finet_deploy.train.reports import Silent

if TYPE_CHECKING:
    from rich.progress import Progress

    from finet_deploy.commands.console import Console
    from finet_deploy.train.reports import EpochReport, Start, StepReport

__all__ = ["TrainProgress"]

LINE_EVERY_SECONDS = 60.0
STATE_FILE = "state.pt"


class TrainProgress(Silent):
    """An observer of training that speaks through a `Console`; a context, so that the bar goes on any way out."""

    def __init__(self, console: Console, title: str = "", *, resumable: bool = True) -> None:
        """title: before every line. resumable: whether `train --resume` is the way to go on."""
        self._console, self._title, self._resumable = console, f"{title}: " if title else "", resumable
        self._bar: Progress | None = None
        self._task: Any = None
        self._start: Start | None = None

    def __enter__(self) -> TrainProgress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def started(self, start: Start) -> None:
        self._start = start
        self._began = self._last_line = time.monotonic()
        self._images = 0
        if self._console.terminal and not self._console.quiet:
            self._bar = _bar()
            self._task = self._bar.add_task(self._title, total=start.total_steps, completed=start.step)
            self._bar.start()

    def step(self, report: StepReport) -> None:
        assert self._start is not None  # `started` comes first
        self._images += report.images
        if self._bar is not None:
            self._bar.update(self._task, completed=report.step, description=self._text(report))
        elif time.monotonic() - self._last_line >= LINE_EVERY_SECONDS:
            self._line(f"{self._text(report)} {self._left(report.step)}")

    def epoch(self, report: EpochReport) -> None:
        assert self._start is not None  # `started` comes first
        top1 = report.accuracy.top1
        self._line(
            f"{self._title}epoch {report.epoch}/{self._start.epochs}: loss {report.train_loss:.4g}, top-1 {top1}"
            f"{', best' if report.best else ''} {self._left(report.step)}"
        )

    def saved(self, path: Path) -> None:
        self.note(f"saved {path}")
        if path.name == STATE_FILE and self._resumable:
            self.note(f"go on with: finet-deploy train --resume -o {shlex.quote(str(path.parent))}")

    def note(self, text: str) -> None:
        if self._bar is not None:
            if not self._console.quiet:
                self._bar.console.print(text, markup=False, highlight=False)
        else:
            self._console.note(text)

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        self.note(text)

    def _text(self, report: StepReport) -> str:
        assert self._start is not None
        return (
            f"{self._title}epoch {report.epoch}/{self._start.epochs}, step {report.step}/{self._start.total_steps}: "
            f"loss {report.loss:.4g}, lr {report.lr:.3g}, {self._speed():.0f} images/s"
        )

    def _speed(self) -> float:
        return self._images / max(time.monotonic() - self._began, 1e-9)

    def _left(self, step: int) -> str:
        """Elapsed and remaining time of this process: what an earlier one has done cost it nothing."""
        assert self._start is not None
        elapsed, done = time.monotonic() - self._began, step - self._start.step
        left = elapsed / done * (self._start.total_steps - step) if done else 0.0
        return f"({self._speed():.0f} images/s, {elapsed:.0f} s, about {left:.0f} s left)"


def _bar() -> Progress:
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    text = TextColumn("{task.description}", markup=False)
    return Progress(
        text, BarColumn(), TimeRemainingColumn(), console=RichConsole(stderr=True), transient=True
    )
