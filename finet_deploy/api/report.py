"""`report`: tables from run folders, made from their records alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finet_deploy.errors import UsageError, suggest

if TYPE_CHECKING:
    from finet_deploy.bench.records import Run

__all__ = ["Report", "report"]

Format = Literal["md", "csv"]
FORMATS: tuple[Format, ...] = ("md", "csv")


@dataclass(frozen=True)
class Report:
    """runs: what was read. text: the tables in the format asked for. files: what was written, if anything was."""

    runs: tuple[Run, ...]
    text: str
    files: tuple[Path, ...]

    def to_json_object(self) -> list[dict[str, Any]]:
        """Every run as plain dicts and lists: device, settings, and all figures with their intervals."""
        from finet_deploy.report import run_object

        return [run_object(run) for run in self.runs]


def report(
    runs: Path | str | Sequence[Path | str], *, format: Format = "md", out: Path | str | None = None
) -> Report:
    """The tables of `runs`: one run folder or several.

    format: of the text: `md`, one table per group of rows that may be compared, with footnotes from the records; `csv`,
    one line a row. out: a folder, into which report.md and the CSV files are written.
    Raises UsageError for a format that is not there, for no run, a run without a finished visit, and an `out` that is a
    file; FinetDeployError for a folder that holds no run or a damaged one.
    """
    from finet_deploy.report import load_runs, render_csv, render_markdown, write_report

    if format not in FORMATS:
        do = suggest(format, FORMATS) or f"use {', '.join(FORMATS)}"
        raise UsageError(f"no tables in format {format!r}", do=do)
    folders = [runs] if isinstance(runs, (Path, str)) else runs
    loaded = tuple(load_runs([Path(folder) for folder in folders]))
    if out is not None and Path(out).is_file():
        raise UsageError(
            "the output is a file, a folder is needed", where=str(out), do="choose another folder"
        )
    text = render_csv(loaded) if format == "csv" else render_markdown(loaded)
    return Report(loaded, text, write_report(loaded, Path(out)) if out is not None else ())
