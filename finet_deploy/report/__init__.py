"""Reports from run folders, in several formats, with the paper's tables as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from finet_deploy.bench.records import JOB_FILE, Run, read_run
from finet_deploy.errors import UsageError
from finet_deploy.files import atomic_write_text
from finet_deploy.report.across import protocol_differences, refuse_mixed_protocols
from finet_deploy.report.data import render_json, report_schema, run_object
from finet_deploy.report.latex import render_latex
from finet_deploy.report.markdown import render_markdown
from finet_deploy.report.page import render_html, write_figures
from finet_deploy.report.paper import paper_csv, paper_table
from finet_deploy.report.tabular import CSV_TYPES, read_results, render_csv, render_notes_csv

__all__ = [
    "CSV_TYPES",
    "FORMATS",
    "Format",
    "load_runs",
    "paper_csv",
    "paper_table",
    "protocol_differences",
    "read_results",
    "render_csv",
    "render_html",
    "render_json",
    "render_latex",
    "render_markdown",
    "render_notes_csv",
    "report_schema",
    "run_object",
    "write_figures",
    "write_report",
]


class Format(NamedTuple):
    """render: the runs as text. file: its name in the folder that `write_report` writes."""

    render: Callable[[Sequence[Run]], str]
    file: str


FORMATS: Mapping[str, Format] = {
    "md": Format(render_markdown, "report.md"),
    "csv": Format(render_csv, "results.csv"),
    "tex": Format(render_latex, "report.tex"),
    "json": Format(render_json, "report.json"),
    "html": Format(render_html, "report.html"),
}
"""All formats by the name that `--format` takes."""


def load_runs(folders: Sequence[Path], *, apart: bool = False) -> list[Run]:
    """The runs in these folders; a folder of run folders, as `bench` writes for several devices, stands for them all.

    `UsageError` when there is nothing to report and, unless `apart`, when runs of several devices were measured by
    different protocols: their figures may not share a table, and with `apart` do not.
    """
    runs = [read_run(folder) for given in folders for folder in _run_folders(given)]
    for run in runs:
        if not any(result.complete for result in run.visits.values()):
            do = "run bench again with resume"
            raise UsageError("no visit was finished in this run", where=str(run.folder), do=do)
    if not runs:
        raise UsageError("nothing to report", do="name at least one run folder")
    if not apart:
        refuse_mixed_protocols(runs)
    return runs


def _run_folders(folder: Path) -> list[Path]:
    if (folder / JOB_FILE).exists() or not folder.is_dir():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"*/{JOB_FILE}")) or [folder]


def write_report(runs: Sequence[Run], out: Path) -> tuple[Path, ...]:
    """Write every format, `notes.csv` and, for the paper's suite, `paper_table4.csv` into `out`; returns the paths.

    Nothing is written before all of it is made; each file is either its old self or whole.
    """
    texts = {form.file: form.render(runs) for form in FORMATS.values()}
    texts["notes.csv"] = render_notes_csv(runs)
    if any(run.job.suite == "table4" for run in runs):
        texts["paper_table4.csv"] = paper_csv(4)
    for name, text in texts.items():
        atomic_write_text(out / name, text)
    return tuple(out / name for name in texts)
