"""From the records of a run to the figures of its tables: one `Comparison` per group of rows that may be compared."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar
from weakref import WeakKeyDictionary

import msgspec

from finet_deploy.bench.protocol import End, First, Load, Record, Row, Settings, Warmup
from finet_deploy.bench.records import Run, VisitResult
from finet_deploy.bench.statistics import (
    Estimate,
    Verdict,
    images_per_second,
    median_estimate,
    noise_floor,
    paired_ratio,
    percentile_ms,
    verdict,
)
from finet_deploy.bench.validity import visit_problem

R = TypeVar("R", bound=Record)

__all__ = [
    "Comparison",
    "InvalidVisit",
    "RowSummary",
    "RowVisits",
    "comparison_key",
    "fusion_label",
    "judge_rows",
    "runtime_versions",
    "summarise",
]


class InvalidVisit(msgspec.Struct, frozen=True, kw_only=True):
    """A visit that does not count. `round` starts at 0, as in the job."""

    row: str
    round: int
    reason: str


class RowSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one row. Times are medians over the valid visits; `None` where there is nothing to tell.

    rates: images per second of each valid visit, in the order of the rounds.
    """

    row: Row
    images_per_second: Estimate | None
    rates: tuple[float, ...]
    ratio: Estimate | None
    verdict: Verdict
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    load_ms: float | None
    first_ms: float | None
    warmup_mean_ms: float | None
    peak_rss_mib: float | None
    samples: int
    valid_visits: int
    capped_visits: int
    invalid: tuple[InvalidVisit, ...]
    missing_visits: int


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that may stand in one table, with the noise floor that their A/A row gives."""

    runtime: str
    runtime_versions: tuple[str, ...]
    precision: str
    threads: int
    input_shape: tuple[int, ...]
    fusion: str
    rows: tuple[RowSummary, ...]
    aa: RowSummary | None
    noise_floor: float | None

    @property
    def all_rows(self) -> tuple[RowSummary, ...]:
        """The rows and, last, the A/A row where there is one."""
        return self.rows if self.aa is None else (*self.rows, self.aa)


def fusion_label(row: Row) -> str:
    """To what degree the artifact is fused: `fused`, `unfused`, or what is left."""
    if not row.fused:
        return "unfused"
    left = row.artifact.normalization_ops
    return "fused" if left == 0 else f"fused, {left} normalization ops left"


def comparison_key(
    row: Row, *, mixed_fusion: bool, mixed_precision: bool = False
) -> tuple[str, int, str, tuple[int, ...], str]:
    """Rows may be compared when these are equal: runtime, threads, precision, input and fusion."""
    fusion = "mixed" if mixed_fusion else fusion_label(row)
    precision = "mixed precision" if mixed_precision else row.artifact.dtype
    return row.artifact.runtime, row.threads, precision, row.input_shape, fusion


_SUMMARIES: WeakKeyDictionary[Run, tuple[Comparison, ...]] = WeakKeyDictionary()


def summarise(run: Run) -> tuple[Comparison, ...]:
    """All comparisons of a run, in the order of the job's rows. Worked out once: every format of a report asks."""
    found = _SUMMARIES.get(run)
    if found is None:
        found = _SUMMARIES[run] = _summarise(run)
    return found


def _summarise(run: Run) -> tuple[Comparison, ...]:
    groups: dict[tuple[str, int, str, tuple[int, ...], str], list[Row]] = {}
    for row in run.job.rows:
        key = comparison_key(row, mixed_fusion=run.job.mixed_fusion, mixed_precision=run.job.mixed_precision)
        groups.setdefault(key, []).append(row)
    return tuple(_compare(run, key, rows) for key, rows in groups.items())


def judge_rows(
    run: Run, rows: Sequence[Row]
) -> tuple[tuple[RowSummary, ...], RowSummary | None, float | None]:
    """Figures of `rows`, those of their A/A row, and the noise floor that it gives: ratios to the baseline among them.

    That rows may share a table is the caller's to see to.
    """
    visits = {row.id: RowVisits(run, row) for row in rows}
    rates = {row.id: visits[row.id].rates(run.job.settings) for row in rows}
    baseline = next((row for row in rows if row.baseline), None)
    same = next((row for row in rows if row.aa_of is not None and row.aa_of in rates), None)
    aa_ratio = paired_ratio(rates[same.id], rates[same.aa_of]) if same and same.aa_of else None
    floor = noise_floor(aa_ratio)

    def summary(row: Row) -> RowSummary:
        ratio = paired_ratio(rates[row.id], rates[baseline.id]) if baseline else None
        judged: Verdict = "baseline" if row is baseline and ratio else verdict(ratio, floor)
        return visits[row.id].summary(rates[row.id], ratio, judged)

    aa = visits[same.id].summary(rates[same.id], aa_ratio, "not distinguishable") if same else None
    return tuple(summary(row) for row in rows if row.aa_of is None), aa, floor


def runtime_versions(run: Run, rows: Sequence[Row]) -> tuple[str, ...]:
    """What the runtime called itself in the valid visits of these rows: one version, or something is odd."""
    return tuple(sorted({load.runtime_version for row in rows for load in RowVisits(run, row).all(Load)}))


def _compare(run: Run, key: tuple[str, int, str, tuple[int, ...], str], rows: list[Row]) -> Comparison:
    judged, aa, floor = judge_rows(run, rows)
    runtime, threads, precision, input_shape, fusion = key
    return Comparison(
        runtime=runtime,
        runtime_versions=runtime_versions(run, rows),
        precision=precision,
        threads=threads,
        input_shape=input_shape,
        fusion=fusion,
        rows=judged,
        aa=aa,
        noise_floor=floor,
    )


class RowVisits:
    """The visits of one row, the valid ones apart from the others."""

    def __init__(self, run: Run, row: Row) -> None:
        self.row = row
        self.valid: dict[int, VisitResult] = {}
        invalid: list[InvalidVisit] = []
        self.missing = 0
        for visit in run.planned[row.id]:
            result = run.visits.get(visit.index)
            if result is None or not result.complete:
                self.missing += 1
            elif problem := visit_problem(result, row):
                invalid.append(InvalidVisit(row=row.label, round=visit.round, reason=problem))
            else:
                self.valid[visit.round] = result
        self.invalid = tuple(invalid)

    def rates(self, settings: Settings) -> dict[int, float]:
        """Images per second by round."""
        return {r: images_per_second(v.latencies_ns, settings.statistic) for r, v in self.valid.items()}

    def all(self, kind: type[R]) -> list[R]:
        """The records of one type, of the valid visits."""
        found = (visit.find(kind) for visit in self.valid.values())
        return [record for record in found if record is not None]

    def summary(self, rates: dict[int, float], ratio: Estimate | None, judged: Verdict) -> RowSummary:
        samples = [sorted(visit.latencies_ns) for visit in self.valid.values()]
        ends = self.all(End)
        return RowSummary(
            row=self.row,
            images_per_second=median_estimate(list(rates.values())) if rates else None,
            rates=tuple(rates[number] for number in sorted(rates)),
            ratio=ratio,
            verdict=judged,
            p50_ms=_median_of(samples, lambda s: percentile_ms(s, 50)),
            p90_ms=_median_of(samples, lambda s: percentile_ms(s, 90)),
            p99_ms=_median_of(samples, lambda s: percentile_ms(s, 99)),
            load_ms=_median(load.load_ms for load in self.all(Load)),
            first_ms=_median(first.first_ms for first in self.all(First)),
            warmup_mean_ms=_median(w.total_ms / w.runs for w in self.all(Warmup) if w.runs),
            peak_rss_mib=_median(end.peak_rss_mib.value for end in ends),
            samples=sum(len(s) for s in samples),
            valid_visits=len(self.valid),
            capped_visits=sum(end.stopped_by != "minimum" for end in ends),
            invalid=self.invalid,
            missing_visits=self.missing,
        )


def _median_of(samples: list[list[int]], figure: Callable[[list[int]], float | None]) -> float | None:
    return _median(figure(one) for one in samples)


def _median(values: Iterable[float | None]) -> float | None:
    """The median, or `None` when there is none or a visit could not tell."""
    known = list(values)
    if not known or any(value is None for value in known):
        return None
    return statistics.median(value for value in known if value is not None)
