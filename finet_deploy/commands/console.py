"""What commands say: results on stdout, progress on stderr; bars on a terminal, plain lines in a pipe."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["Console", "output_options"]


class Console:
    """Where a command's words go. `json_output`: stdout carries one JSON document and nothing else."""

    def __init__(self, *, json_output: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.json_output, self.quiet, self.verbose = json_output, quiet, verbose
        self.terminal = sys.stderr.isatty()

    def as_options(self) -> list[str]:
        """The options that make the same console, for a command that calls another one."""
        given = {"--json": self.json_output, "--quiet": self.quiet, "--verbose": self.verbose}
        return [option for option, is_set in given.items() if is_set]

    def note(self, text: str) -> None:
        """A step that was taken, or a fallback: stderr, unless --quiet."""
        if not self.quiet:
            click.echo(text, err=True)

    def detail(self, text: str) -> None:
        """For --verbose only."""
        if self.verbose:
            self.note(text)

    def warn(self, text: str) -> None:
        """Printed also under --quiet."""
        click.echo(f"warning: {text}", err=True)

    def result(self, text: str) -> None:
        """A result for people: stdout, unless --json."""
        if not self.json_output:
            click.echo(text)

    def document(self, value: Any) -> None:
        """The result for machines: one JSON document on stdout, with --json only. NaN is not JSON and is refused."""
        if self.json_output:
            click.echo(json.dumps(value, indent=2, allow_nan=False))

    @contextlib.contextmanager
    def progress(self, title: str, total: int) -> Iterator[Callable[[str], None]]:
        """A callback to be called once a step with its description; shows the remaining time."""
        if self.quiet:
            yield lambda step: None
        elif self.terminal:
            with _bar() as bar:
                task = bar.add_task(title, total=total)
                yield lambda step: bar.update(task, advance=1, description=step)
        else:
            yield _lines(title, total)


def _bar() -> Progress:
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=RichConsole(stderr=True), transient=True)


def _lines(title: str, total: int) -> Callable[[str], None]:
    started, done = time.monotonic(), 0

    def step(text: str) -> None:
        nonlocal done
        done += 1
        elapsed = time.monotonic() - started
        remaining = elapsed / done * max(0, total - done)
        click.echo(f"[{done}/{total}] {text} ({elapsed:.0f} s, about {remaining:.0f} s left)", err=True)

    return step


def output_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--json`, `-q`, `-v`, handed to the command as one `console`."""

    @click.option("--json", "json_output", is_flag=True, help="Print one JSON document on stdout.")
    @click.option("-q", "--quiet", is_flag=True, help="No progress, no notes; warnings and errors stay.")
    @click.option("-v", "--verbose", is_flag=True, help="Say more about each step.")
    @wraps(function)
    def wrapper(*args: Any, json_output: bool, quiet: bool, verbose: bool, **kwargs: Any) -> Any:
        console = Console(json_output=json_output, quiet=quiet, verbose=verbose)
        return function(*args, console=console, **kwargs)

    return wrapper
