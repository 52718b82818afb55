"""The run folder: `job.json` and `records.jsonl`. Append-only; a run that was killed at any moment can go on."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from finet_deploy.bench.protocol import (
    End,
    First,
    Invalid,
    Job,
    Load,
    Record,
    Resumed,
    Samples,
    Start,
    Visit,
    Warmup,
    encode_record,
)
from finet_deploy.bench.versions import decode_job, decode_record_line
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.files import atomic_write_bytes, explain_os_error, read_bounded
from finet_deploy.json_files import encode_json

__all__ = ["JOB_FILE", "RECORDS_FILE", "RecordLog", "Run", "VisitResult"]
__all__ += ["check_new", "create_run", "decode_lines", "read_job", "read_run"]

JOB_FILE = "job.json"
RECORDS_FILE = "records.jsonl"
MAX_JOB_BYTES = 32 << 20
MAX_RECORDS_BYTES = 1 << 28  # read whole; a visit of the longest preset takes some 10 kB
MAX_LINE_BYTES = 1 << 20

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class VisitResult:
    """The records of one visit, in order."""

    visit: int
    records: tuple[Record, ...]

    @cached_property
    def _first(self) -> dict[Any, Record]:
        return {type(record): record for record in reversed(self.records)}

    def find(self, kind: type[R]) -> R | None:
        """The visit's record of this type, or `None`."""
        return cast("R | None", self._first.get(kind))

    @property
    def complete(self) -> bool:
        """Whether the visit came to an end, good or bad."""
        return self.find(End) is not None or self.find(Invalid) is not None

    @cached_property
    def latencies_ns(self) -> list[int]:
        """All samples, in the order in which they were taken."""
        batches = (record for record in self.records if isinstance(record, Samples))
        return [latency for batch in batches for latency in batch.latencies_ns]

    @property
    def phase(self) -> str:
        """The last phase that the records show as reached."""
        reached = [name for kind, name in _PHASES if self.find(kind) is not None]
        return reached[-1] if reached else "start"


# Each record is written when its phase is over: what it shows is that the next phase had begun.
_PHASES: tuple[tuple[type[Record], str], ...] = (
    (Start, "load"),
    (Load, "first"),
    (First, "warmup"),
    (Warmup, "timing"),
    (Samples, "check"),
    (End, "end"),
)


@dataclass(frozen=True, eq=False)  # told apart by identity: what was worked out of a run is kept with it
class Run:
    """What a run folder holds. `notes` are things a reader of its tables should know."""

    folder: Path
    job: Job
    visits: dict[int, VisitResult]
    resumed: tuple[Resumed, ...] = ()
    notes: tuple[str, ...] = ()
    tail_bytes: int = field(default=0, repr=False)

    @cached_property
    def planned(self) -> dict[str, list[Visit]]:
        """The job's visits by row."""
        found: dict[str, list[Visit]] = {row.id: [] for row in self.job.rows}
        for visit in self.job.visits:
            found[visit.row].append(visit)
        return found

    @property
    def missing(self) -> tuple[int, ...]:
        """Indices of the visits that are still to be done."""
        done = {index for index, result in self.visits.items() if result.complete}
        return tuple(visit.index for visit in self.job.visits if visit.index not in done)


def check_new(folder: Path) -> None:
    """`UsageError` when the folder already holds something: to be known before minutes of exporting, too."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "output already exists",
            where=str(folder),
            do="choose another folder, or resume the run that is in it",
        )


def create_run(folder: Path, job: Job) -> None:
    """Start a new run folder. `UsageError` when the folder already holds something."""
    check_new(folder)
    atomic_write_bytes(folder / JOB_FILE, encode_json(job))


def read_job(folder: Path) -> Job:
    """The job of a run folder. `FinetDeployError` when it is missing, foreign, or of another schema version."""
    path = folder / JOB_FILE
    if not path.is_file():
        raise FinetDeployError(
            f"no {JOB_FILE} {_kind(folder)}", where=str(folder), do="name a folder written by bench"
        )
    job = decode_job(read_bounded(path, MAX_JOB_BYTES), str(path))
    _check_job(job, str(path))
    return job


def _kind(folder: Path) -> str:
    if folder.is_dir():
        return "in this folder: it is no run"
    return "here: this is a file, no folder" if folder.exists() else "here: there is no such folder"


def _check_job(job: Job, where: str) -> None:
    """`FinetDeployError` when rows and visits contradict each other: each figure would be of something else."""
    rows = {row.id for row in job.rows}
    if len(rows) != len(job.rows) or not all(visit.row in rows for visit in job.visits):
        found, do = "visits and rows do not match", "the file is damaged: measure again"
    elif not all(row.aa_of in rows for row in job.rows if row.aa_of is not None):
        found, do = "a row repeats a row that is not there", "the file is damaged: measure again"
    elif [visit.index for visit in job.visits] != list(range(len(job.visits))):
        found, do = "visits are not numbered 0, 1, ...", "measure again"
    elif len({(visit.row, visit.round) for visit in job.visits}) != len(job.visits):
        found, do = "a row is visited twice in a round", "the file is damaged: measure again"
    else:
        return
    raise FinetDeployError(found, where=where, do=do)


def read_run(folder: Path | str) -> Run:
    """Job and records of a run folder.

    A last line that was cut off is left out and noted: that is how a killed run looks. Anything else that is not a
    record is a `FinetDeployError`.
    """
    folder = Path(folder)
    job = read_job(folder)
    path = folder / RECORDS_FILE
    records: list[Record] = []
    tail = 0
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise FinetDeployError("not a file", where=str(path), do="check the folder")
    if path.exists():
        try:
            with path.open("rb") as stream:
                records, tail = decode_lines(stream, str(path))
        except OSError as error:
            raise explain_os_error(error, "read", path) from error
    resumed = tuple(record for record in records if isinstance(record, Resumed))
    notes = []
    cut = tail + sum(record.discarded_bytes for record in resumed)
    if cut:
        notes.append(f"a line of {RECORDS_FILE} was cut off when the run was killed ({cut} bytes left out)")
    return Run(folder, job, _by_visit(records, job, str(path)), resumed, tuple(notes), tail)


def decode_lines(stream: IO[bytes], where: str) -> tuple[list[Record], int]:
    """The records in a stream of JSON lines, and how many bytes of an unfinished last line were left out."""
    records: list[Record] = []
    doubtful: tuple[bytes, FinetDeployError] | None = None
    total = number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        total += len(line)
        if len(line) > MAX_LINE_BYTES or total > MAX_RECORDS_BYTES:
            limit = f"a line holds {MAX_LINE_BYTES >> 20} MiB, all of them {MAX_RECORDS_BYTES >> 20} MiB"
            raise FinetDeployError(
                f"too large for run records: {limit} at most", where=f"{where}:{number}", do="check it"
            )
        if not line.endswith(b"\n"):
            return records, len(line)
        record: Record | None = None
        try:
            record = decode_record_line(line, f"{where}:{number}")
        except FinetDeployError as error:
            if doubtful is None:
                doubtful = (line, error)
                continue
        # A cut line is whole again as a line once the resumed run has ended it; the next record vouches for that.
        if doubtful is not None:
            cut = isinstance(record, Resumed) and record.discarded_bytes == len(doubtful[0]) - 1
            if not cut:
                raise doubtful[1]
            doubtful = None
        if record is not None:
            records.append(record)
    if doubtful is not None:
        raise doubtful[1]
    return records, 0


def _by_visit(records: Sequence[Record], job: Job, where: str) -> dict[int, VisitResult]:
    found: dict[int, list[Record]] = {}
    for record in records:
        if isinstance(record, Resumed):
            continue
        if record.visit >= len(job.visits):
            message = f"record of visit {record.visit}, which is not in the job"
            raise FinetDeployError(message, where=where, do="check it")
        if isinstance(record, Start):
            found[record.visit] = []  # a visit that was cut off before is done again from its start
        found.setdefault(record.visit, []).append(record)
    return {index: VisitResult(index, tuple(items)) for index, items in sorted(found.items())}


class RecordLog:
    """`records.jsonl`, open for appending by this process alone."""

    def __init__(self, folder: Path, stream: IO[bytes]) -> None:
        self._path, self._stream = folder / RECORDS_FILE, stream

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path) -> Iterator[RecordLog]:
        """`UsageError` when another process is writing to the same run folder."""
        path = folder / RECORDS_FILE
        try:
            stream = path.open("ab", buffering=0)
        except OSError as error:
            raise explain_os_error(error, "write", path) from error
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                do = "wait until it has ended"
                raise UsageError(
                    "another process is writing to this run", where=str(folder), do=do
                ) from error
            yield cls(folder, stream)

    def append(self, records: Sequence[Record]) -> None:
        """Write whole records and wait until they are on the disk."""
        data = b"".join(encode_record(record) for record in records)
        self._write(data)

    def mark_resumed(self, run: Run, utc: str) -> None:
        """Close a line that was cut off and note that the run goes on."""
        done = len(run.job.visits) - len(run.missing)
        mark = Resumed(resumed_utc=utc, visits_done=done, discarded_bytes=run.tail_bytes)
        self._write((b"\n" if run.tail_bytes else b"") + encode_record(mark))

    def _write(self, data: bytes) -> None:
        try:
            view = memoryview(data)
            while view:
                view = view[self._stream.write(view) :]
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise explain_os_error(error, "write", self._path) from error
