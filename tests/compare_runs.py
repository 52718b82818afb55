"""Runs that no device measured, of given latencies, for what compares runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from finet_deploy.bench.protocol import Record, Visit
from finet_deploy.bench.records import RecordLog, Run, VisitResult, create_run, read_run
from finet_deploy.bench.settings import load_preset
from finet_deploy.compare import Side
from finet_deploy.files import sha256_bytes
from tests.bench_fakes import make_job, make_records, make_row

__all__ = ["AA", "simulated_run", "simulated_side", "written_run"]

AA = "A/A: "  # rows whose name starts so repeat the row of the rest of the name
Column = tuple[str, Sequence[int | None]]  # file, and ns by round; None: the visit failed


def simulated_run(
    folder: Path | str, columns: Mapping[str, Column], *, runtime: str = "onnxruntime", **changes: Any
) -> Run:
    """A run of preset `normal`, with as many rounds as the columns have, that is in no folder.

    changes: `row__NAME` and `artifact__NAME` of every row (or a dict from a row's name to its value), `load__NAME` of
    the visits' load records, and fields of the job.
    """
    job, records = _plan(columns, runtime, changes)
    visits = {visit.index: VisitResult(visit.index, tuple(found)) for visit, found in records}
    return Run(Path(folder), job, visits)


def written_run(folder: Path, columns: Mapping[str, Column], **changes: Any) -> Path:
    """The same in a run folder; returns the folder."""
    job, records = _plan(columns, changes.pop("runtime", "onnxruntime"), changes)
    create_run(folder, job)
    with RecordLog.open(folder) as log:
        log.append([record for _, found in records for record in found])
    assert not read_run(folder).missing
    return folder


def simulated_side(name: str, *columns: Mapping[str, Column], **changes: Any) -> Side:
    """A side with one such run for each of these columns."""
    return Side(name, [simulated_run(f"{name}-{n}", one, **changes) for n, one in enumerate(columns)])


def _plan(
    columns: Mapping[str, Column], runtime: str, changes: dict[str, Any]
) -> tuple[Any, list[tuple[Visit, list[Record]]]]:
    visit_changes = {
        k.removeprefix("load__"): changes.pop(k) for k in list(changes) if k.startswith("load__")
    }
    row_changes = {k: changes.pop(k) for k in list(changes) if k.startswith(("row__", "artifact__"))}
    ids = {name: f"{runtime}/{number}" for number, name in enumerate(columns)}
    rows = []
    for name, (file, _) in columns.items():
        own = {k.removeprefix("row__"): _own(value, name) for k, value in row_changes.items()}
        own = {k: value for k, value in own.items() if value is not None}
        aa_of = ids[name.removeprefix(AA)] if name.startswith(AA) else None
        artifact = {"artifact__sha256": sha256_bytes(file.encode()), "artifact__runtime": runtime}
        rows.append(make_row(ids[name], **{"label": name, "aa_of": aa_of, **artifact, **own}))
    rounds = len(next(iter(columns.values()))[1])
    settings = changes.pop("settings", load_preset("normal"))
    job = make_job(rows, msgspec.structs.replace(settings, rounds=rounds), **changes)
    by_id = {row.id: row for row in rows}
    records = []
    for visit in job.visits:
        row = by_id[visit.row]
        latency = columns[row.label][1][visit.round]
        spoilt = {"error": 1.0} if latency is None else {}
        found = make_records(visit, row, [latency or 1], **{**visit_changes, **spoilt})
        records.append((visit, found))
    return job, records


def _own(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else value
