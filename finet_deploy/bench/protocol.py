"""The protocol between a benchmark and whatever runs it: a job goes in, run records come out.

Everything here is data, without behaviour. The README beside this file describes each field; units are part of the
field names. A later version that changes the meaning of a field raises `SCHEMA_VERSION`. One that adds a field does
not: it gives it a default that says so, with which older files are read; older programs refuse the newer file and name
the field.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

__all__ = [
    "RECORD_TYPES",
    "SCHEMA_VERSION",
    "THERMAL_STATUSES",
    "UNFINISHED",
    "Artifact",
    "DeviceInfo",
    "DeviceState",
    "End",
    "First",
    "Golden",
    "Invalid",
    "Job",
    "Load",
    "Reading",
    "Record",
    "Resumed",
    "Row",
    "Samples",
    "Settings",
    "Start",
    "Visit",
    "VisitRequest",
    "Warmup",
    "decode_record",
    "encode_record",
]

SCHEMA_VERSION: Final = 1
UNFINISHED = ".unfinished"  # a runner adds this to the name of its records until they are complete

THERMAL_STATUSES: Final = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
"""Android's `PowerManager.THERMAL_STATUS_*` by their numbers, 0 to 6."""

T = TypeVar("T")
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]
Milliseconds = Annotated[float, Meta(ge=0)]
Nanoseconds = Annotated[int, Meta(ge=0)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class _Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all structures of the protocol: immutable, by keyword, nothing unknown."""


class Reading(msgspec.Struct, Generic[T], frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a probe read, or `None` with the reason why it could not be read."""

    value: T | None = None
    reason: str | None = None


class DeviceInfo(_Data, frozen=True, kw_only=True):
    """What a device is. It does not change while a job runs; a job resumes only on the same device."""

    name: str
    kind: str
    emulated: bool
    cpu_model: Reading[str]
    cpu_count: Positive
    machine: Reading[str]
    operating_system: Reading[str]
    memory_mib: Reading[int]


_NOT_KEPT: Final[Reading[Any]] = Reading(reason="not kept when this was recorded")


class DeviceState(_Data, frozen=True, kw_only=True):
    """What a device was doing at one moment. The fields with a default came later than the first records."""

    load_average_1min: Reading[float]
    governor: Reading[str]
    frequencies_mhz: Reading[tuple[float, ...]]
    memory_available_mib: Reading[int]
    temperatures_celsius: Reading[dict[str, float]]
    battery_percent: Reading[float]
    battery_charging: Reading[bool]
    thermal_status: Reading[str] = _NOT_KEPT
    thermal_headroom: Reading[float] = _NOT_KEPT
    sustained_performance: Reading[bool] = _NOT_KEPT


class Settings(_Data, frozen=True, kw_only=True):
    """A preset, every value of it. Each loop runs until it has min_runs AND min_seconds, or meets a cap."""

    preset: str
    description: str
    rounds: Positive
    warmup_min_runs: Positive
    warmup_min_seconds: Seconds
    warmup_max_seconds: Seconds
    timed_min_runs: Positive
    timed_min_seconds: Seconds
    timed_max_seconds: Seconds
    timed_max_runs: Positive
    visit_timeout_seconds: Seconds
    statistic: Literal["median", "mean"]
    aa_row: bool


class Artifact(_Data, frozen=True, kw_only=True):
    """The file that a runtime runs, and what the exporter found in it."""

    file: str
    sha256: Sha256
    bytes: Count
    format: str
    runtime: str
    dtype: str
    delegates: Count | None = None
    delegated_share: float | None = None
    nodes_outside: Count | None = None
    normalization_ops: Count
    notices: tuple[str, ...] = ()


class Golden(_Data, frozen=True, kw_only=True):
    """The bundle's golden inputs and outputs, and how close a runtime's outputs have to come to some of them."""

    file: str
    sha256: Sha256
    timed_input: str
    output_limits: Annotated[dict[str, float], Meta(min_length=1)]


class Row(_Data, frozen=True, kw_only=True):
    """One line of the table: a model in one runtime. `aa_of` names the row that an A/A row repeats."""

    id: str
    label: str
    baseline: bool
    aa_of: str | None = None
    bundle: str
    artifact: Artifact
    golden: Golden
    threads: Positive
    input_shape: Annotated[tuple[Positive, ...], Meta(min_length=1)]
    fused: bool
    trained: bool | None = None
    params: Count
    macs: Count
    certificate_passed: bool


class Visit(_Data, frozen=True, kw_only=True):
    """One fresh process that measures one row once."""

    index: Count
    round: Count
    position: Count
    row: str


class Job(_Data, frozen=True, kw_only=True):
    """A whole benchmark: the rows, in which order they are visited, and how each visit is timed.

    runner: the kind of program that makes the visits, `python`, `native` or `app` (None: a run from before this was
    kept).
    left_out: runtimes that every bundle has a file for and the runner lacks.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    tool_version: str
    created_utc: str
    suite: str | None = None
    mixed_fusion: bool
    mixed_precision: bool = False
    device: DeviceInfo
    runner: str | None = None
    left_out: tuple[str, ...] = ()
    settings: Settings
    rows: Annotated[tuple[Row, ...], Meta(min_length=1)]
    visits: Annotated[tuple[Visit, ...], Meta(min_length=1)]


class VisitRequest(_Data, frozen=True, kw_only=True):
    """What a runner gets: one visit, with the paths as the runner sees them."""

    schema_version: Literal[1] = SCHEMA_VERSION
    settings: Settings
    visit: Visit
    row: Row
    artifact_path: str
    golden_path: str


class _Record(_Data, tag_field="type", frozen=True, kw_only=True):
    """Base of the lines in `records.jsonl`."""

    schema_version: Literal[1] = SCHEMA_VERSION


class _VisitRecord(_Record, frozen=True, kw_only=True):
    """Base of the lines that belong to a visit."""

    visit: Count


class Start(_VisitRecord, tag="start", frozen=True, kw_only=True):
    """The process is up; nothing was loaded yet."""

    started_utc: str
    pid: Count
    runner: str
    affinity_cpus: Reading[tuple[int, ...]]
    artifact_sha256: Sha256
    state: DeviceState


class Load(_VisitRecord, tag="load", frozen=True, kw_only=True):
    """The file is open; version and threads are what the runtime answers. Importing its library is counted apart."""

    runtime: str
    runtime_version: str
    threads: Count
    import_ms: Milliseconds
    load_ms: Milliseconds


class First(_VisitRecord, tag="first", frozen=True, kw_only=True):
    """The first inference."""

    first_ms: Milliseconds


class Warmup(_VisitRecord, tag="warmup", frozen=True, kw_only=True):
    """The inferences after the first and before the timed ones, in the same process."""

    runs: Count
    total_ms: Milliseconds


class Samples(_VisitRecord, tag="samples", frozen=True, kw_only=True):
    """A batch of timed inferences, in order. All batches together are all samples."""

    latencies_ns: tuple[Nanoseconds, ...]


class End(_VisitRecord, tag="end", frozen=True, kw_only=True):
    """The visit is over. Whether it is valid follows from the records and the row: `validity.visit_problem`."""

    ended_utc: str
    runs: Count
    total_ms: Milliseconds
    stopped_by: Literal["minimum", "max_seconds", "max_runs"]
    peak_rss_mib: Reading[float]
    os_threads: Reading[int]
    output_errors: dict[str, float | None]
    state: DeviceState


class Invalid(_VisitRecord, tag="invalid", frozen=True, kw_only=True):
    """The visit failed, and why. Written by the runner, or by the device when the runner died."""

    reason: str
    phase: str
    exit_status: int | None = None
    signal: str | None = None
    stderr_tail: str = ""


class Resumed(_Record, tag="resumed", frozen=True, kw_only=True):
    """From here on the job was continued by another process."""

    resumed_utc: str
    visits_done: Count
    discarded_bytes: Count


Record = Start | Load | First | Warmup | Samples | End | Invalid | Resumed
RECORD_TYPES: tuple[type[_Record], ...] = (Start, Load, First, Warmup, Samples, End, Invalid, Resumed)

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


def encode_record(record: Record) -> bytes:
    """One line of `records.jsonl`, with its newline."""
    return _ENCODER.encode(record) + b"\n"


def decode_record(line: bytes) -> Record:
    """The record in one line. `msgspec.DecodeError` (or `RecursionError`) when the line is not one."""
    return _DECODER.decode(line)
