"""The protocol: what is written reads back, every field is described, nothing foreign gets in."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from finet_deploy.bench import protocol
from finet_deploy.bench.protocol import decode_record, encode_record
from tests.bench_fakes import make_job, make_records, make_row

DATA = Path(__file__).parents[1] / "data" / "bench"
README = Path(protocol.__file__).with_name("README.md")


def example() -> tuple[protocol.Job, list[protocol.Record]]:
    row = make_row()
    same = msgspec.structs.replace(row, id="onnxruntime/0-aa", aa_of=row.id, baseline=False)
    job = make_job([row, same], suite="table4", runner="native", left_out=("torch_mobile",))
    records = make_records(job.visits[0], row, [1_000_000, 1_100_000])
    invalid = protocol.Invalid(
        visit=1, reason="the runner was killed by SIGKILL", phase="load", signal="SIGKILL", stderr_tail="bye"
    )
    resumed = protocol.Resumed(resumed_utc="2026-11-21T00:00:03+00:00", visits_done=1, discarded_bytes=17)
    return job, [*records, invalid, resumed]


def test_the_job_is_written_as_the_golden_file_has_it():
    job, _ = example()
    assert msgspec.json.format(msgspec.json.encode(job), indent=1) + b"\n" == (DATA / "job.json").read_bytes()
    assert msgspec.json.decode((DATA / "job.json").read_bytes(), type=protocol.Job) == job


def test_the_records_are_written_as_the_golden_file_has_them():
    _, records = example()
    assert {type(record) for record in records} == set(protocol.RECORD_TYPES)
    lines = (DATA / "records.jsonl").read_bytes().splitlines(keepends=True)
    assert [encode_record(record) for record in records] == lines
    assert [decode_record(line) for line in lines] == records


def test_records_from_before_a_field_was_added_are_read_and_say_so():
    text = (DATA / "records.jsonl").read_text()
    old = re.sub(r',"thermal_status":.*?"sustained_performance":\{[^}]*\}', "", text.splitlines()[0])
    assert "thermal" not in old.replace("thermal_zone0", "")
    state = decode_record(old.encode()).state
    for name in ("thermal_status", "thermal_headroom", "sustained_performance"):
        assert getattr(state, name) == protocol.Reading(reason="not kept when this was recorded")
    new = decode_record(text.splitlines()[0].encode()).state
    assert new.thermal_status.value == "light"


def test_the_readme_describes_every_field_of_every_structure_and_no_other():
    described: dict[str, set[str]] = {}
    section = ""
    for line in README.read_text("utf-8").splitlines():
        if heading := re.match(r"### (\w+)", line):
            section = heading[1]
        elif field := re.match(r"\| `(\w+)` \| \S", line):
            described.setdefault(section, set()).add(field[1])
    structures = [getattr(protocol, name) for name in protocol.__all__ if name[0].isupper()]
    for structure in structures:
        if isinstance(structure, type) and issubclass(structure, msgspec.Struct):
            name = structure.__struct_config__.tag or structure.__name__
            assert described.pop(name, set()) == set(structure.__struct_fields__), name
    assert not described


def test_units_are_part_of_the_field_names_of_every_measured_number():
    without = {"thermal_headroom"}  # Android's own name, a share
    for structure in (protocol.Load, protocol.First, protocol.Warmup, protocol.End, protocol.DeviceState):
        for name, kind in structure.__annotations__.items():
            if (name not in without and "Reading[float]" in str(kind)) or "Milliseconds" in str(kind):
                assert re.search(r"_(ms|mib|mhz|celsius|percent|1min)$", name), name


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b'{"type":"end"}',
        b'{"type":"what","visit":0}',
        b'{"type":"warmup","visit":-1,"runs":1,"total_ms":1.0}',
        b'{"type":"warmup","visit":0,"runs":1,"total_ms":NaN}',
        b'{"type":"warmup","visit":0,"runs":1,"total_ms":1e999}',
        b'{"type":"warmup","visit":0,"runs":"1","total_ms":1.0}',
        b'{"type":"warmup","visit":0,"runs":1,"total_ms":1.0,"extra":1}',
        b'{"type":"warmup","visit":0,"runs":1,"total_ms":1.0,"schema_version":2}',
        b'{"type":"samples","visit":0,"latencies_ns":[1.5]}',
        b"[" * 100_000,
        b'{"type":"samples","visit":0,"latencies_ns":' + b"[" * 100_000,
        b"\xff\xfe\x00",
    ],
)
def test_what_is_not_a_record_is_refused(line):
    with pytest.raises((msgspec.DecodeError, RecursionError)):
        decode_record(line)
