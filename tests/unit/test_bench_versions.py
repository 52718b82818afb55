"""Jobs and records of other versions, and of other programs: brought up to date, or refused by name."""

from __future__ import annotations

import json
import os

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finet_deploy import __version__
from finet_deploy.bench.protocol import SCHEMA_VERSION, Job, encode_record
from finet_deploy.bench.records import read_run
from finet_deploy.bench.versions import UPGRADES, Upgrade, decode_job, decode_record_line
from finet_deploy.errors import FinetDeployError
from finet_deploy.report import FORMATS, load_runs
from tests.bench_fakes import make_job, make_records, make_row, make_run

ROW = make_row(label="net")
JOB = make_job([ROW])
RECORDS = make_records(JOB.visits[0], ROW, [1_000_000] * 5)


def as_document(value, **changes):
    return {**json.loads(msgspec.json.encode(value)), **changes}


def lines_of(folder):
    return (folder / "records.jsonl").read_bytes().splitlines(keepends=True)


# What version 0 would have been: one word for a field, and seconds where there are milliseconds now. Version -1 before
# it had no tool_version.
def rename(document):
    return {("tool_version" if key == "tool" else key): value for key, value in document.items()}


def scale(document):
    seconds = document.pop("first_s")
    return {**document, "first_ms": seconds * 1e3}


OLDER = {
    0: Upgrade(rename, scale),
    -1: Upgrade(lambda document: {**document, "tool": "0.0.1"}, lambda document: document),
}


def test_a_job_and_records_of_older_versions_go_through_every_step_between():
    document = as_document(JOB)
    del document["tool_version"]
    found = decode_job(json.dumps({**document, "schema_version": -1}).encode(), "x", OLDER)
    assert found == msgspec.structs.replace(JOB, tool_version="0.0.1")
    found = decode_job(json.dumps({**document, "tool": "0.9", "schema_version": 0}).encode(), "x", OLDER)
    assert found == msgspec.structs.replace(JOB, tool_version="0.9")
    first = {"type": "first", "schema_version": 0, "visit": 0, "first_s": 0.03125}
    for version in (0, -1):
        line = json.dumps({**first, "schema_version": version}).encode()
        assert decode_record_line(line, "x", OLDER) == RECORDS[2]


def test_an_upgrade_that_leads_to_no_valid_record_is_a_damaged_file():
    line = b'{"type": "first", "schema_version": 0, "visit": -1, "first_s": 1}'
    with pytest.raises(FinetDeployError, match=r"not a run record of schema version 0: .*`\$.visit`"):
        decode_record_line(line, "x", OLDER)
    for told in ('"first_ms": 1', '"first_s": {}'):
        with pytest.raises(FinetDeployError, match="not a run record of schema version 0"):
            decode_record_line(line.replace(b'"first_s": 1', told.encode()), "x", OLDER)


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 0, -5, 10**9])
def test_a_version_that_no_step_leads_from_is_refused_by_name_with_found_expected_and_what_to_do(version):
    data = json.dumps(as_document(JOB, schema_version=version, tool_version="9.8.7")).encode()
    expected = (
        rf"benchmark job of schema version {version}, this program reads version {SCHEMA_VERSION} \[a/job.json\]; "
        rf"use the finet-deploy that wrote it, 9\.8\.7; this is {__version__}"
    )
    with pytest.raises(FinetDeployError, match=expected):
        decode_job(data, "a/job.json")
    line = json.dumps(as_document(RECORDS[0], type="start", schema_version=version)).encode()
    with pytest.raises(FinetDeployError, match=f"run record of schema version {version}, this program reads"):
        decode_record_line(line, "r:1")
    if version not in (SCHEMA_VERSION + 1, 10**9):
        return
    with pytest.raises(FinetDeployError, match="reads version -1 and 0 and 1"):
        decode_job(data, "a/job.json", OLDER)


def test_every_step_of_this_program_leads_to_the_present_version():
    assert set(UPGRADES) == set(range(SCHEMA_VERSION - len(UPGRADES), SCHEMA_VERSION))


def test_a_field_of_a_later_program_is_named_with_the_version_that_wrote_it():
    data = json.dumps(as_document(JOB, tool_version="2.0", wattage=3)).encode()
    with pytest.raises(
        FinetDeployError, match=r"unknown field `wattage`.*later finet-deploy.*, 2\.0; this is"
    ):
        decode_job(data, "x")


@pytest.mark.parametrize("version", ["1", None, True, 1.0, [1]])
def test_a_schema_version_that_is_no_number_is_no_version(version):
    with pytest.raises(FinetDeployError, match="not a benchmark job: .*schema_version"):
        decode_job(json.dumps(as_document(JOB, schema_version=version)).encode(), "x")


def test_a_file_that_tells_no_version_is_refused():
    document = as_document(JOB)
    del document["schema_version"]
    with pytest.raises(FinetDeployError, match="benchmark job without a schema_version"):
        decode_job(json.dumps(document).encode(), "x")
    with pytest.raises(FinetDeployError, match="run record without a schema_version"):
        decode_record_line(b'{"type":"first","visit":0,"first_ms":1}', "x")


def test_records_from_before_a_field_was_kept_read_as_not_kept():
    document = as_document(RECORDS[0], type="start")
    for name in ("thermal_status", "thermal_headroom", "sustained_performance"):
        del document["state"][name]
    start = decode_record_line(json.dumps(document).encode(), "x")
    assert start.state.thermal_headroom.reason == "not kept when this was recorded"
    old = as_document(JOB)
    for name in ("mixed_precision", "runner", "left_out"):
        del old[name]
    assert decode_job(json.dumps(old).encode(), "x").runner is None


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda rows, visits: rows.append(rows[0]), "visits and rows do not match"),
        (lambda rows, visits: rows[0].update(aa_of="nobody"), "repeats a row that is not there"),
        (lambda rows, visits: visits[1].update(round=0), "visited twice in a round"),
        (lambda rows, visits: visits[1].update(index=7), "not numbered"),
        (lambda rows, visits: rows[0].update(threads=10**30), "does not fit into 64 bits"),
        (lambda rows, visits: rows[0]["golden"].update(output_limits={}), "output_limits"),
        (lambda rows, visits: visits.clear(), "visits"),
    ],
)
def test_a_job_that_contradicts_itself_is_refused(tmp_path, change, message):
    document = as_document(JOB)
    change(document["rows"], document["visits"])
    (tmp_path / "job.json").write_text(json.dumps(document))
    with pytest.raises(FinetDeployError, match=message):
        read_run(tmp_path)


@pytest.mark.parametrize("name", ["job.json", "records.jsonl", "phone.jsonl"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    folder = make_run(tmp_path / "run", JOB, {ROW.id: 10.0}).folder
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(FinetDeployError, match="no job.json|not a file"):
        FORMATS["md"].render(load_runs([folder]))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_records_file_is_reported_whole_or_refused_in_one_line(tmp_path_factory, data):
    """Bytes changed, cut out, doubled: never another exception, never a format that breaks on what was let in."""
    folder = tmp_path_factory.mktemp("damaged") / "run"
    whole = b"".join(lines_of(make_run(folder, JOB, {ROW.id: 10.0}).folder))
    at = data.draw(st.integers(0, len(whole) - 1))
    length = data.draw(st.integers(0, 40))
    put = data.draw(
        st.binary(max_size=6)
        | st.sampled_from([b"\n", b"9" * 25, b"[" * 70, b'","x":"', b"\x00", b"-1", b"e9"])
    )
    (folder / "records.jsonl").write_bytes(whole[:at] + put + whole[at + length :])
    try:
        runs = load_runs([folder])
    except FinetDeployError as error:
        assert "\n" not in str(error)
        return
    for form in FORMATS.values():
        form.render(runs)


def test_what_was_cut_off_is_said_in_every_format(tmp_path):
    folder = make_run(tmp_path / "run", JOB, {ROW.id: 10.0}).folder
    with (folder / "records.jsonl").open("ab") as stream:
        stream.write(encode_record(RECORDS[0])[:30])
    runs = load_runs([folder])
    assert isinstance(runs[0].job, Job)
    for name in ("md", "tex", "json"):
        assert "was cut off when the run was killed (30 bytes left out)" in FORMATS[name].render(runs)
