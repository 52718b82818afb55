"""Runs for tests of the report: those that are kept as files, and ones that exist in memory alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from finet_deploy.bench.protocol import Job, Record, Row
from finet_deploy.bench.records import Run, VisitResult
from tests.bench_fakes import SETTINGS, make_job, make_records, make_row

__all__ = ["HOST", "HOSTILE", "PHONE", "a_run", "many_rows", "memory_run", "rows_of"]

ROOT = Path(__file__).parents[1]
HOST = ROOT / "results" / "table4-quick"
PHONE = ROOT / "tests" / "data" / "report" / "simulated_phone"

HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=document.title='owned'>",
    "\"><svg onload=document.title='owned'>",
    "' onmouseover='document.title=1",
    "{{ 7 * 191 }}{% raw %}",
    "]]><!--<style>*{display:none}</style>",
    "javascript:document.title='owned'",
    "\x00\x1b[31m\u202e\u2066name\r\nnext",
    "=cmd|'/C calc'!A0 &lt;b&gt; &#60;i&#62;",
)


def rows_of(labels: Sequence[str], runtime: str = "onnxruntime", **changes: object) -> list[Row]:
    """A row a label, the first of them the baseline, and its A/A row."""
    made = [
        make_row(f"{runtime}/{number}", label=label, artifact__runtime=runtime, **changes)
        for number, label in enumerate(labels)
    ]
    same = {"id": f"{made[0].id}-aa", "label": f"A/A: {labels[0]}", "baseline": False, "aa_of": made[0].id}
    return [*made, msgspec.structs.replace(made[0], **same)]


def memory_run(
    job: Job, latencies: Callable[[int, int], Sequence[int]], spoil: dict[int, dict] | None = None
) -> Run:
    """A finished run that was never written. latencies: number of the row, number of the round -> nanoseconds."""
    rows = {row.id: (number, row) for number, row in enumerate(job.rows)}
    visits: dict[int, VisitResult] = {}
    for visit in job.visits:
        number, row = rows[visit.row]
        records: list[Record] = make_records(
            visit, row, latencies(number, visit.round), **(spoil or {}).get(visit.index, {})
        )
        visits[visit.index] = VisitResult(visit.index, tuple(records))
    return Run(Path("/nowhere"), job, visits)


def steady(number: int, round_: int, samples: int = 30) -> list[int]:
    """About 10 ms for the first row, 1 ms more for each after it, a little different each time."""
    return [
        10_000_000 + 1_000_000 * number + 20_000 * (round_ * 7919 % 11) + 3_000 * i for i in range(samples)
    ]


def a_run(
    labels: Sequence[str] = ("Finet", "Peer"), spoil: dict[int, dict] | None = None, **changes: object
) -> Run:
    """Three rounds of these networks in one runtime."""
    return memory_run(make_job(rows_of(labels), **changes), steady, spoil)


def many_rows(networks: int, rounds: int) -> Run:
    """A run of (networks + 1) x rounds visits, six records each."""
    settings = msgspec.structs.replace(SETTINGS, rounds=rounds)
    names = [f"Network number {number} with a name of some length" for number in range(networks)]
    return memory_run(make_job(rows_of(names), settings), steady)
