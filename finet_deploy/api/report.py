"""`report`: tables from run folders, made from their records alone. The command of that name calls it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finet_deploy.errors import UsageError, suggest

if TYPE_CHECKING:
    from finet_deploy.bench.records import Run

__all__ = ["Report", "report"]


@dataclass(frozen=True)
class Report:
    """runs: what was read. format: of `text`. files: what was written, if anything was.

    differences: in what the protocols of several devices differ, where their tables stand apart because of it.
    """

    runs: tuple[Run, ...]
    format: str
    files: tuple[Path, ...]
    differences: tuple[str, ...]

    @property
    def text(self) -> str:
        """The report in the format that was asked for."""
        from finet_deploy.report import FORMATS

        return FORMATS[self.format].render(self.runs)

    def to_json_object(self) -> list[dict[str, Any]]:
        """Every run as plain dicts and lists: device, settings, and all figures with their intervals."""
        from finet_deploy.report import run_object

        return [run_object(run) for run in self.runs]


def report(
    runs: Path | str | Sequence[Path | str],
    *,
    format: str = "md",
    apart: bool = False,
    out: Path | str | None = None,
) -> Report:
    """The report of `runs`: one run folder, several, or a folder of run folders.

    format: of the text, a key of `finet_deploy.report.FORMATS`: `md`, `csv`, `tex`, `json`, `html`. apart: runs of
    several devices that were measured by different protocols get tables of their own. out: a folder, into which the
    report is written in every format, with `html` its plots as SVG and PNG too.
    Raises UsageError for a format that is not there, for no run, a run without a finished visit, different protocols
    without `apart`, and an `out` that is a file; FinetDeployError for a folder that holds no run or a damaged one.
    """
    from finet_deploy.report import FORMATS, load_runs, protocol_differences, write_figures, write_report

    if format not in FORMATS:
        do = suggest(format, FORMATS) or f"use {', '.join(FORMATS)}"
        raise UsageError(f"no report in format {format!r}", do=do)
    folders = [runs] if isinstance(runs, (Path, str)) else runs
    loaded = tuple(load_runs([Path(folder) for folder in folders], apart=apart))
    if out is not None and Path(out).is_file():
        raise UsageError(
            "the output is a file, a folder is needed", where=str(out), do="choose another folder"
        )
    files: list[Path] = []
    if out is not None:
        files += write_figures(loaded, Path(out) / "figures") if format == "html" else []
        files += write_report(loaded, Path(out))
    return Report(loaded, format, tuple(files), tuple(protocol_differences(loaded)))
