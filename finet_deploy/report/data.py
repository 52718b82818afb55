"""A report as one JSON document with typed values. Its schema is `report.schema.json` beside this file.

`runs` holds the figures, unrounded; `sections` what the other formats print, digits and footnotes included.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from finet_deploy import __version__
from finet_deploy.bench.json_schema import json_schema
from finet_deploy.bench.protocol import DeviceInfo, Settings
from finet_deploy.bench.records import Run
from finet_deploy.bench.summary import Comparison, summarise
from finet_deploy.json_files import encode_json
from finet_deploy.report.document import Section, cell_text, sections
from finet_deploy.report.footnotes import run_notes, table_notes

__all__ = ["REPORT_VERSION", "SCHEMA_FILE", "ReportDocument", "render_json", "report_schema", "run_object"]

REPORT_VERSION: Final = 1
SCHEMA_FILE = Path(__file__).with_name("report.schema.json")


class _Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all structures of the document: immutable, by keyword, nothing unknown."""


class PrintedSection(_Data, frozen=True, kw_only=True):
    """A section as the other formats print it. columns and rows: of its table, none where it has no table."""

    level: int
    title: str
    text: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


class RunReport(_Data, frozen=True, kw_only=True):
    """One run. footnotes: of the whole run; table_footnotes: of each comparison, in the same order.

    notes: damage that was found when the run was read; they are among the footnotes.
    """

    folder: str
    suite: str | None
    device: DeviceInfo
    runner: str | None
    tool_version: str
    created_utc: str
    settings: Settings
    missing_visits: int
    resumed: int
    notes: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    footnotes: tuple[str, ...]
    table_footnotes: tuple[tuple[str, ...], ...]


class ReportDocument(_Data, frozen=True, kw_only=True):
    """The whole document. tool_version: of the program that made the report; each run has that which measured."""

    schema_version: Literal[1] = REPORT_VERSION
    tool_version: str
    runs: tuple[RunReport, ...]
    sections: tuple[PrintedSection, ...]


def render_json(runs: Sequence[Run]) -> str:
    """The document of these runs, a field a line."""
    document = ReportDocument(
        tool_version=__version__,
        runs=tuple(map(_run, runs)),
        sections=tuple(map(_printed, sections(runs))),
    )
    return encode_json(document).decode()


def run_object(run: Run) -> dict[str, Any]:
    """A run as plain dicts and lists: device, settings, and all figures with their intervals."""
    found: dict[str, Any] = msgspec.to_builtins(_run(run))
    return found


def report_schema() -> str:
    """The document's JSON Schema: `ReportDocument` is the whole."""
    return json_schema(ReportDocument)


def _run(run: Run) -> RunReport:
    job, found = run.job, summarise(run)
    return RunReport(
        folder=str(run.folder),
        suite=job.suite,
        device=job.device,
        runner=job.runner,
        tool_version=job.tool_version,
        created_utc=job.created_utc,
        settings=job.settings,
        missing_visits=len(run.missing),
        resumed=len(run.resumed),
        notes=run.notes,
        comparisons=found,
        footnotes=tuple(run_notes(run)),
        table_footnotes=tuple(tuple(table_notes(comparison)) for comparison in found),
    )


def _printed(section: Section) -> PrintedSection:
    table = section.table
    return PrintedSection(
        level=section.level,
        title=section.title,
        text=section.text,
        columns=table.columns if table else (),
        rows=tuple(tuple(map(cell_text, row)) for row in table.rows) if table else (),
        notes=section.notes,
    )
