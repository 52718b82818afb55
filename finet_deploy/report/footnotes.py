"""Footnotes, written from the records: what a reader must know to trust, or not to trust, a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from finet_deploy.bench.protocol import DeviceState, Job, Reading, Row, Settings, Start
from finet_deploy.bench.records import Run
from finet_deploy.bench.statistics import CONFIDENCE, best_coverage
from finet_deploy.bench.summary import Comparison, RowSummary
from finet_deploy.devices.phone_log import read_lines, remarks
from finet_deploy.report.across import AcrossDevices
from finet_deploy.report.numbers import format_estimate

__all__ = ["across_notes", "run_notes", "table_notes"]

UNPAIRED = (
    "app / native: images per second of two runs of the same file, one after the other, with a bootstrap interval over "
    "the rounds of both. Their rounds are not paired: what heat and other work did to one of them is in the figure, "
    "and not in the interval."
)


def run_notes(run: Run) -> list[str]:
    """Notes on the whole run: device, its state, protocol, resumption, damage."""
    device, job = run.job.device, run.job
    notes = [
        f"Device: {device.name}{', emulated: these are not speeds of a real device' if device.emulated else ''}; "
        f"CPU: {_show(device.cpu_model)}, {device.cpu_count} CPUs; OS: {_show(device.operating_system)} "
        f"{_show(device.machine)}; memory: {_show(device.memory_mib)} MiB.",
        _protocol(job.settings),
        _statistic(job.settings),
        *_runner(job),
        *_state(run),
        f"Measured by finet-deploy {job.tool_version}, started {job.created_utc}.",
    ]
    for mark in run.resumed:
        notes.append(
            f"The run was interrupted and resumed at {mark.resumed_utc}, after {mark.visits_done} of "
            f"{len(job.visits)} visits."
        )
    if run.missing:
        notes.append(f"INCOMPLETE: {len(run.missing)} of {len(job.visits)} visits are missing.")
    notes += _phone_remarks(run)
    return [*notes, *(f"{note[:1].upper()}{note[1:]}." for note in run.notes)]


def _phone_remarks(run: Run) -> list[str]:
    """What was amiss on the phone, with the number of visits that it holds for."""
    visits = remarks(read_lines(run.folder))
    counted = Counter(text for texts in visits.values() for text in texts)
    total = len(run.job.visits)
    return [f"On the phone, {count} of {total} visits: {text}." for text, count in counted.most_common()]


def table_notes(comparison: Comparison) -> list[str]:
    """Notes on one table: noise floor, weights, delegates, invalid visits."""
    rows = comparison.rows
    notes = [_noise(comparison)]
    if comparison.fusion == "mixed":
        notes.append(
            "Fused and unfused rows stand in this table on purpose: each row's name says which it is."
        )
    if comparison.precision == "mixed precision":
        notes.append(
            "Rows of different precision stand in this table on purpose: each row's name says its own. An int8 row "
            "computes other outputs than an fp32 one, within the limits of its bundle's certificate."
        )
    unknown = [summary.row for summary in rows if summary.row.trained is None]
    if unknown:
        notes.append(f"Whether the weights are trained is not known: {_names(unknown)}.")
    untrained = [summary.row for summary in rows if summary.row.trained is False]
    if untrained:
        which = "all rows" if len(untrained) == len(rows) else _names(untrained)
        notes.append(
            f"Weights are untrained (seeded) in {which}: speed does not depend on them, accuracy would."
        )
    if any(summary.row.artifact.delegates is not None for summary in rows):
        notes.append(
            "Delegates: parts that the runtime hands to its accelerated backend; 1 is best. The count tells how a "
            "network is written, not what it could reach."
        )
    for text in dict.fromkeys(notice for summary in rows for notice in summary.row.artifact.notices):
        notes.append(text)
    return [*notes, *_exceptions(comparison.all_rows)]


def across_notes(table: AcrossDevices) -> list[str]:
    """Notes on a table over several devices: in what else but the device its columns differ."""
    notes = [UNPAIRED] if table.differences else []
    if len(set(table.runtime_versions.values())) > 1:
        versions = (
            f"{column}: {', '.join(found) or 'unknown'}" for column, found in table.runtime_versions.items()
        )
        notes.append(f"The columns differ in the runtime's version. {'; '.join(versions)}.")
    if table.other_files:
        notes.append(f"Not the same file in every column (SHA-256 differs): {', '.join(table.other_files)}.")
    return notes


def _protocol(settings: Settings) -> str:
    return (
        f"Preset {settings.preset}: {settings.rounds} rounds, each visiting every row once in rotated order, a fresh "
        f"process a visit; warm-up at least {settings.warmup_min_runs} runs and {settings.warmup_min_seconds:g} s, "
        f"timed at least {settings.timed_min_runs} runs and {settings.timed_min_seconds:g} s, batch 1."
    )


def _statistic(settings: Settings) -> str:
    per_visit = (
        "one over the median latency" if settings.statistic == "median" else "runs over their total time"
    )
    note = (
        f"Images per second: {per_visit} of a visit, then the median over rounds, with a {CONFIDENCE:.0%} bootstrap "
        "interval over rounds; ratios are paired by round."
    )
    reach = best_coverage(settings.rounds)
    if reach < CONFIDENCE:
        note += (
            f" From {settings.rounds} rounds no interval can cover more than {reach:.0%}: read it as a range."
        )
    return note


def _runner(job: Job) -> Iterator[str]:
    if job.runner is not None:
        yield f"Runner: {job.runner}."
    if job.left_out:
        yield f"Not measured, since this runner lacks the runtime: {', '.join(job.left_out)}."


def _state(run: Run) -> Iterator[str]:
    starts = [start for result in run.visits.values() if (start := result.find(Start))]
    states = [start.state for start in starts]
    if not states:
        return
    masks = dict.fromkeys(_show(start.affinity_cpus) for start in starts)
    yield (
        f"Before the visits: load average {_range(states, 'load_average_1min')}, governor "
        f"{_values(states, 'governor')}, frequency {_range(states, 'frequencies_mhz', ' MHz')}, temperature "
        f"{_range(states, 'temperatures_celsius', ' °C')}, battery {_range(states, 'battery_percent', ' %')}; "
        f"CPUs allowed: {'; '.join(masks)}."
    )
    loads = [state.load_average_1min.value or 0.0 for state in states]
    if max(loads) > run.job.device.cpu_count + 1:
        yield "BUSY: more was running on the device than it has CPUs for; measure again when it is quiet."


def _noise(comparison: Comparison) -> str:
    aa, floor = comparison.aa, comparison.noise_floor
    if aa is None or floor is None or aa.ratio is None or aa.ratio.low is None or aa.ratio.high is None:
        return (
            "No noise floor (no A/A row, or too few valid rounds of it): no row is called faster or slower."
        )
    # From few rounds the interval misses 1 often, by chance alone: that is no sign of anything.
    outside = not aa.ratio.low <= 1 <= aa.ratio.high and best_coverage(aa.ratio.rounds) >= CONFIDENCE
    note = (
        f"Noise floor: the same file under two names differs by {format_estimate(aa.ratio)}; a row is called faster "
        f"or slower only when its ratio's whole interval lies outside {1 / floor:.3f} to {floor:.3f}."
    )
    return (
        f"{note} That interval does not hold 1: the device was disturbed, measure again." if outside else note
    )


def _exceptions(summaries: Sequence[RowSummary]) -> Iterator[str]:
    for summary in summaries:
        label = summary.row.label
        reasons: dict[str, list[int]] = {}
        for visit in summary.invalid:
            reasons.setdefault(visit.reason, []).append(visit.round + 1)
        for reason, rounds in reasons.items():
            listed = ", ".join(map(str, rounds))
            yield f"INVALID: {label}, round {listed}: {reason}. Left out of the figures."
        if summary.capped_visits:
            yield f"{label}: {summary.capped_visits} visits met the time or run limit before the preset's minimum."


def _names(rows: Iterable[Row]) -> str:
    return ", ".join(row.label for row in rows)


def _show(reading: Reading) -> str:
    if reading.value is None:
        return f"not readable ({reading.reason})"
    if isinstance(reading.value, tuple):
        return ", ".join(map(str, reading.value))
    return str(reading.value)


def _values(states: list[DeviceState], name: str) -> str:
    return "; ".join(dict.fromkeys(_show(getattr(state, name)) for state in states))


def _range(states: list[DeviceState], name: str, unit: str = "") -> str:
    """Smallest to largest value that was read, or the reason why none was."""
    known: list[float] = []
    for state in states:
        value = getattr(state, name).value
        if isinstance(value, dict):
            known.extend(value.values())
        elif isinstance(value, tuple):
            known.extend(value)
        elif value is not None:
            known.append(value)
    if not known:
        return _show(getattr(states[0], name))
    low, high = min(known), max(known)
    return f"{low:g}{unit}" if low == high else f"{low:g} to {high:g}{unit}"
