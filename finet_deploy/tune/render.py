"""The result of a search as Markdown and CSV. Pure."""

from __future__ import annotations

import csv
import io

from finet_deploy.report.markdown import escape, render_table
from finet_deploy.report.numbers import format_estimate, format_significant
from finet_deploy.report.tabular import csv_cell
from finet_deploy.runner.cost import NOTE
from finet_deploy.tune.budget import format_seconds
from finet_deploy.tune.model import TuneResult, TuneRow

__all__ = ["render_csv", "render_markdown", "where_measured"]

MILLION = 1e6
PARETO_NOTE = (
    "Pareto: no other row is as fast (as cheap), as exact and as modest in threads, and better in one of them. fp32 "
    "files count as equally exact: each is within 1e-5 of the network by its certificate."
)
RATIO_NOTE = (
    "Ratio: images per second over the default bundle's, paired by round, median with a 95 % interval. Rows that went "
    "out early were measured in few rounds: their figures are rough, and a single round has no interval."
)
COUNT_NOTE = "Ratio: the default bundle's instructions over the row's."


def where_measured(result: TuneResult) -> str:
    """`host`, or `cortex-a76 (emulated)`."""
    name = result.core or (result.device.name if result.device else "")
    return f"{name} (emulated)" if result.emulated else name


def render_markdown(result: TuneResult) -> str:
    """The sentence, the table, what was left out, and how it was measured."""
    parts = [
        f"# {escape(f'{result.subject}: searched on {where_measured(result)}')}",
        f"{escape(result.sentence)}.",
        render_table(_columns(result), [_cells(result, row) for row in _ordered(result)]),
    ]
    if result.left_out:
        listed = [f"* {escape(f'{item.what}: {item.reason}')}" for item in result.left_out]
        parts += ["## What was left out", "\n".join(listed)]
    parts += ["## How this was found", "\n".join(f"* {escape(note)}" for note in _notes(result))]
    return "\n\n".join(parts) + "\n"


def _columns(result: TuneResult) -> list[str]:
    counted = result.unit == "instructions"
    return [
        "candidate",
        "",
        "M instructions (emulated)" if counted else "images/s [95 % interval]",
        "ratio to default" if counted else "ratio to default [95 % interval]",
        "SQNR dB",
        "MB",
        *([] if counted else ["peak MiB", "rounds"]),
        "why not",
    ]


def _cells(result: TuneResult, row: TuneRow) -> list[str]:
    marks = [
        word for word, on in (("default", row.default), ("winner", row.winner), ("Pareto", row.pareto)) if on
    ]
    figure = format_estimate(row.images_per_second)
    if result.unit == "instructions":
        figure = "–" if row.instructions is None else f"{row.instructions / MILLION:.2f}"
    measured = [format_significant(row.peak_rss_mib), str(row.rounds)] if result.unit == "images/s" else []
    return [
        row.candidate.label,
        ", ".join(marks),
        figure,
        "1" if row.default and row.ratio is not None else format_estimate(row.ratio),
        "–" if row.candidate.sqnr_db is None else f"{row.candidate.sqnr_db:.1f}",
        f"{row.candidate.bytes / MILLION:.1f}",
        *measured,
        row.why_not or "",
    ]


def _ordered(result: TuneResult) -> list[TuneRow]:
    """The fastest first, those without a figure last."""
    return sorted(result.rows, key=lambda row: -row.ratio.value if row.ratio is not None else 0.0)


def _notes(result: TuneResult) -> list[str]:
    notes = [f"{where_measured(result)}; runner: {result.runner or 'the native one, emulated'}."]
    budget = f"Budget {format_seconds(result.budget_seconds)}, used {format_seconds(result.used_seconds)}."
    notes.append(f"{budget} int8 files keep an SQNR of at least {result.min_sqnr_db:g} dB.")
    for number, rung in enumerate(result.rungs, start=1):
        entrants, plural = len(rung.entrants), "" if rung.rounds == 1 else "s"
        notes.append(
            f"Rung {number}: {entrants} against the default in {rung.rounds} interleaved round{plural}."
        )
    if result.unit == "instructions":
        notes += [NOTE, COUNT_NOTE]
    else:
        floor = result.noise_floor
        shown = "not known" if floor is None else f"a factor of {floor:.3f}"
        notes += [RATIO_NOTE, f"Noise floor, from the A/A row of the last rung: {shown}."]
    return [*notes, PARETO_NOTE, *result.notes]


def render_csv(result: TuneResult) -> str:
    """One line a candidate, in the order of the search; figures in full."""
    stream = io.StringIO()
    records = [_record(result, row) for row in result.rows]
    writer = csv.DictWriter(stream, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in record.items()} for record in records)
    return stream.getvalue()


def _record(result: TuneResult, row: TuneRow) -> dict[str, object]:
    candidate = row.candidate
    record: dict[str, object] = {
        "device": where_measured(result),
        "emulated": result.emulated,
        "candidate": candidate.id,
        "runtime": candidate.runtime,
        "precision": candidate.dtype,
        "passes": candidate.passes,
        "core": candidate.core,
        "threads": candidate.threads,
        "cores": candidate.cores,
        "default": row.default,
        "winner": row.winner,
        "pareto": row.pareto,
        "instructions": row.instructions,
    }
    for name, estimate in (("images_per_second", row.images_per_second), ("ratio_to_default", row.ratio)):
        record[name] = None if estimate is None else estimate.value
        record[f"{name}_low"] = None if estimate is None else estimate.low
        record[f"{name}_high"] = None if estimate is None else estimate.high
    return record | {
        "verdict": row.verdict,
        "rung": row.rung,
        "rounds": row.rounds,
        "p50_ms": row.p50_ms,
        "peak_rss_mib": row.peak_rss_mib,
        "sqnr_db": candidate.sqnr_db,
        "bytes": candidate.bytes,
        "artifact_sha256": candidate.sha256,
        "why_not": row.why_not,
    }
