"""Runs as CSV: one line a row of a table, plain numbers, units in the column names. Pure: records in, text out."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from finet_deploy.bench.records import Run
from finet_deploy.bench.statistics import Estimate
from finet_deploy.bench.summary import Comparison, RowSummary, fusion_label, summarise

__all__ = ["csv_cell", "render_csv"]

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def render_csv(runs: Sequence[Run]) -> str:
    """All rows of all runs. Which of them may be compared, the columns from `run` to `fusion` tell."""
    records = [
        _record(run, comparison, summary)
        for run in runs
        for comparison in summarise(run)
        for summary in comparison.all_rows
    ]
    stream = io.StringIO()
    if records:
        writer = csv.DictWriter(stream, fieldnames=list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: csv_cell(value) for name, value in record.items()} for record in records)
    return stream.getvalue()


def _record(run: Run, comparison: Comparison, summary: RowSummary) -> dict[str, Any]:
    row, job = summary.row, run.job
    return {
        "run": run.folder.name,
        "suite": job.suite,
        "device": job.device.name,
        "emulated": job.device.emulated,
        "runner": job.runner,
        "runtime": comparison.runtime,
        "runtime_version": " ".join(comparison.runtime_versions),
        "threads": row.threads,
        "precision": row.artifact.dtype,
        "input_shape": "x".join(map(str, row.input_shape)),
        "fusion": fusion_label(row),
        "preset": job.settings.preset,
        "network": row.label,
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
        "artifact_sha256": row.artifact.sha256,
    }


def _estimate(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    value, low, high = (estimate.value, estimate.low, estimate.high) if estimate else (None, None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def csv_cell(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula gets an apostrophe in front."""
    if isinstance(value, str):
        text = "".join(char if char.isprintable() else " " for char in value)
        return f"'{text}" if value.startswith(FORMULA_STARTS) else text
    return value
