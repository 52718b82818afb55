"""Tables from run folders: Markdown and CSV, with the paper's tables as data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from finet_deploy.bench.records import Run, read_run
from finet_deploy.bench.summary import summarise
from finet_deploy.errors import UsageError
from finet_deploy.files import atomic_write_text
from finet_deploy.report.markdown import render_markdown
from finet_deploy.report.paper import paper_csv, paper_table
from finet_deploy.report.tabular import render_csv

__all__ = [
    "load_runs",
    "paper_csv",
    "paper_table",
    "render_csv",
    "render_markdown",
    "run_object",
    "write_report",
]


def load_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs in these folders. `UsageError` when there is nothing to report."""
    runs = [read_run(folder) for folder in folders]
    for run in runs:
        if not any(result.complete for result in run.visits.values()):
            do = "run bench again with resume"
            raise UsageError("no visit was finished in this run", where=str(run.folder), do=do)
    if not runs:
        raise UsageError("nothing to report", do="name at least one run folder")
    return runs


def run_object(run: Run) -> dict[str, Any]:
    """A run as plain dicts and lists: device, settings, and all figures with their intervals."""
    return {
        "folder": str(run.folder),
        "suite": run.job.suite,
        "device": msgspec.to_builtins(run.job.device),
        "settings": msgspec.to_builtins(run.job.settings),
        "missing_visits": len(run.missing),
        "resumed": len(run.resumed),
        "notes": list(run.notes),
        "comparisons": [msgspec.to_builtins(comparison) for comparison in summarise(run)],
    }


def write_report(runs: Sequence[Run], out: Path) -> tuple[Path, ...]:
    """Write `report.md`, `results.csv` and, for the paper's suite, `paper_table4.csv` into `out`; returns the paths."""
    texts = {"report.md": render_markdown(runs), "results.csv": render_csv(runs)}
    if any(run.job.suite == "table4" for run in runs):
        texts["paper_table4.csv"] = paper_csv(4)
    for name, text in texts.items():
        atomic_write_text(out / name, text)
    return tuple(out / name for name in texts)
