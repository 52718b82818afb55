"""Runs as CSV: one line a row of a table, plain numbers, units in the column names. Pure: records in, text out.

`results.csv` holds the figures, unrounded, beside a text with the digits that the interval supports. `notes.csv` holds
the footnotes: those of a run have no table, the others name the table that they stand below.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finet_deploy.bench.records import Run
from finet_deploy.bench.statistics import Estimate
from finet_deploy.bench.summary import Comparison, RowSummary, fusion_label, summarise
from finet_deploy.report.footnotes import run_notes, table_notes
from finet_deploy.report.numbers import format_estimate

if TYPE_CHECKING:
    from pathlib import Path

    import pandas

__all__ = ["CSV_TYPES", "csv_cell", "read_results", "render_csv", "render_notes_csv"]

# The last three are the first ones in full width, which some spreadsheets take for the same.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

TEXT, WHOLE, NUMBER, TRUTH, MOMENT = "string", "Int64", "Float64", "boolean", "datetime64[us, UTC]"
CSV_TYPES: Mapping[str, str] = {
    "run": TEXT,
    "created_utc": MOMENT,
    "suite": TEXT,
    "device": TEXT,
    "emulated": TRUTH,
    "runner": TEXT,
    "table": WHOLE,
    "runtime": TEXT,
    "runtime_version": TEXT,
    "threads": WHOLE,
    "precision": TEXT,
    "input_shape": TEXT,
    "fusion": TEXT,
    "preset": TEXT,
    "network": TEXT,
    "baseline": TRUTH,
    "same_file_as": TEXT,
    "images_per_second": NUMBER,
    "images_per_second_low": NUMBER,
    "images_per_second_high": NUMBER,
    "images_per_second_text": TEXT,
    "ratio_to_baseline": NUMBER,
    "ratio_to_baseline_low": NUMBER,
    "ratio_to_baseline_high": NUMBER,
    "ratio_to_baseline_text": TEXT,
    "verdict": TEXT,
    "noise_floor_factor": NUMBER,
    "p50_ms": NUMBER,
    "p90_ms": NUMBER,
    "p99_ms": NUMBER,
    "load_ms": NUMBER,
    "first_ms": NUMBER,
    "warmup_mean_ms": NUMBER,
    "peak_rss_mib": NUMBER,
    "samples": WHOLE,
    "valid_visits": WHOLE,
    "invalid_visits": WHOLE,
    "missing_visits": WHOLE,
    "delegates": WHOLE,
    "delegated_share": NUMBER,
    "normalization_ops": WHOLE,
    "params": WHOLE,
    "macs": WHOLE,
    "trained": TRUTH,
    "certificate_passed": TRUTH,
    "artifact_sha256": TEXT,
}
"""The columns of `results.csv`, in order, with the pandas type of each. Every type holds gaps, as NumPy's do not."""


def render_csv(runs: Sequence[Run]) -> str:
    """All rows of all runs. Which of them may be compared, the columns from `run` to `preset` tell."""
    return _csv(
        tuple(CSV_TYPES),
        (
            _record(run, number, comparison, summary)
            for run in runs
            for number, comparison in enumerate(summarise(run), start=1)
            for summary in comparison.all_rows
        ),
    )


def render_notes_csv(runs: Sequence[Run]) -> str:
    """The footnotes of all runs and of their tables."""
    lines: list[dict[str, Any]] = []
    for run in runs:
        about: list[tuple[int | None, list[str]]] = [(None, run_notes(run))]
        about += [(number, table_notes(found)) for number, found in enumerate(summarise(run), start=1)]
        lines += [
            {"run": run.folder.name, "table": number, "note": note}
            for number, notes in about
            for note in notes
        ]
    return _csv(("run", "table", "note"), lines)


def read_results(file: Path | str | io.StringIO) -> pandas.DataFrame:
    """A `results.csv` as a pandas frame with the types of `CSV_TYPES`: whole numbers and truths stay so beside gaps.

    Only an empty cell is a gap, and a time that is none: a network may be called "NA".
    """
    import pandas

    types: dict[Any, Any] = {name: kind for name, kind in CSV_TYPES.items() if kind != MOMENT}
    frame = pandas.read_csv(file, dtype=types, keep_default_na=False, na_values=[""])
    for name in (name for name, kind in CSV_TYPES.items() if kind == MOMENT):
        moments = pandas.to_datetime(frame[name], utc=True, format="ISO8601", errors="coerce")
        frame[name] = moments.dt.as_unit("us")
    return frame


def _csv(names: Sequence[str], records: Iterable[Mapping[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in record.items()} for record in records)
    return stream.getvalue()


def _record(run: Run, table: int, comparison: Comparison, summary: RowSummary) -> dict[str, Any]:
    row, job = summary.row, run.job
    return {
        "run": run.folder.name,
        "created_utc": job.created_utc,
        "suite": job.suite,
        "device": job.device.name,
        "emulated": job.device.emulated,
        "runner": job.runner,
        "table": table,
        "runtime": comparison.runtime,
        "runtime_version": " ".join(comparison.runtime_versions),
        "threads": row.threads,
        "precision": row.artifact.dtype,
        "input_shape": "x".join(map(str, row.input_shape)),
        "fusion": fusion_label(row),
        "preset": job.settings.preset,
        "network": row.label,
        "baseline": row.baseline,
        "same_file_as": row.aa_of,
        **_estimate("images_per_second", summary.images_per_second),
        **_estimate("ratio_to_baseline", summary.ratio),
        "verdict": "same file" if row.aa_of else summary.verdict,
        "noise_floor_factor": comparison.noise_floor,
        "p50_ms": summary.p50_ms,
        "p90_ms": summary.p90_ms,
        "p99_ms": summary.p99_ms,
        "load_ms": summary.load_ms,
        "first_ms": summary.first_ms,
        "warmup_mean_ms": summary.warmup_mean_ms,
        "peak_rss_mib": summary.peak_rss_mib,
        "samples": summary.samples,
        "valid_visits": summary.valid_visits,
        "invalid_visits": len(summary.invalid),
        "missing_visits": summary.missing_visits,
        "delegates": row.artifact.delegates,
        "delegated_share": row.artifact.delegated_share,
        "normalization_ops": row.artifact.normalization_ops,
        "params": row.params,
        "macs": row.macs,
        "trained": row.trained,
        "certificate_passed": row.certificate_passed,
        "artifact_sha256": row.artifact.sha256,
    }


def _estimate(name: str, estimate: Estimate | None) -> dict[str, Any]:
    value, low, high = (estimate.value, estimate.low, estimate.high) if estimate else (None, None, None)
    text = None if estimate is None else format_estimate(estimate)
    return {name: value, f"{name}_low": low, f"{name}_high": high, f"{name}_text": text}


def csv_cell(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula gets an apostrophe in front."""
    if isinstance(value, str):
        text = "".join(char if char.isprintable() else " " for char in value)
        return f"'{text}" if value.startswith(FORMULA_STARTS) else text
    return value
